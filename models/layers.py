"""Which layers of a graph IBD-PSC may amplify: BatchNorms, and convolutions that swallowed one.

Exporters fold a BatchNorm into the convolution before it. In eval mode amplifying it is multiplying what it
gives, so the folded convolution's output can be multiplied instead (Hou et al., ICML 2024, section 4.2).
But a folded convolution looks like any convolution with a bias. The rule:

- a convolution without a bias has swallowed nothing, nor has one whose BatchNorm is still there;
- a bias that carries its exporter's mark (a name that only folding gives) was folded;
- any other bias is *unsure*, and not amplified unless the bundle says so: `folded: all`, or their names.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from models.errors import BundleError

__all__ = ["Folded", "Layer", "Layers", "choose"]

Folded = Literal["marked", "all"] | tuple[str, ...]
"""What a bundle says of its convolutions with a bias: only marked ones are folded, all, or those named."""

SHOWN = 4


@dataclass(frozen=True)
class Layer:
    """A layer that could be amplified. `marked`: of a convolution, its bias carries an exporter's mark."""

    name: str
    kind: Literal["batch_norm", "convolution"]
    marked: bool = False


@dataclass(frozen=True)
class Layers:
    """The layers of a graph by name: `amplified` in execution order, of which `folded` are convolutions;
    `unsure` are convolutions with a bias that may have swallowed a BatchNorm. `obstacle`: why none may be
    amplified, or None."""

    amplified: tuple[str, ...]
    folded: tuple[str, ...] = ()
    unsure: tuple[str, ...] = ()
    obstacle: str | None = None

    def summary(self) -> str:
        """The layers in a sentence for people."""
        kept = len(self.amplified) - len(self.folded)
        text = f"{kept} BatchNorm layers, {len(self.folded)} folded into convolutions"
        return f"{text}; {self.doubt()}" if self.unsure else text

    def doubt(self) -> str:
        """What the operator can do about the layers that are unsure."""
        names = ", ".join(self.unsure[:SHOWN]) + (", ..." if len(self.unsure) > SHOWN else "")
        return (
            f"{len(self.unsure)} convolutions with a bias may have swallowed a BatchNorm ({names}): where "
            "the network had one after each, say `folded: all` in model.yaml, else name those that had"
        )

    def why_none(self) -> str:
        """Why there is nothing to amplify."""
        if self.obstacle is not None:
            return self.obstacle
        return f"no BatchNorm is left in the graph; {self.doubt()}" if self.unsure else "it has no BatchNorm"


def choose(found: Sequence[Layer], folded: Folded) -> Layers:
    """Of the layers `found`, in execution order, those to amplify.

    Raises `BundleError` for a name in `folded` that is no convolution with a bias.
    """
    convolutions = [layer for layer in found if layer.kind == "convolution"]
    if folded == "marked":
        chosen = {layer.name for layer in convolutions if layer.marked}
    elif folded == "all":
        chosen = {layer.name for layer in convolutions}
    else:
        chosen = set(folded)
        unknown = chosen - {layer.name for layer in convolutions}
        if unknown:
            there = ", ".join(layer.name for layer in convolutions) or "none"
            raise BundleError(f"folded: {min(unknown)!r} is no convolution with a bias; there are: {there}")
    amplified = [layer for layer in found if layer.kind == "batch_norm" or layer.name in chosen]
    return Layers(
        tuple(layer.name for layer in amplified),
        tuple(layer.name for layer in amplified if layer.kind == "convolution"),
        tuple(layer.name for layer in convolutions if layer.name not in chosen) if folded == "marked" else (),
    )
