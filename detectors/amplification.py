"""The n + 1 networks of IBD-PSC: a plain one, and variants with their last BatchNorm layers amplified.

Variant i is the network with γ and β of its last i BatchNorm layers multiplied by ω (Hou et al., ICML
2024, section 4.2). "Last" is execution order, recorded from a forward pass.
"""

import copy
import math
import threading
from collections.abc import Sequence
from typing import Any, Protocol

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

from detectors.base import InputError, UnsupportedNetwork

__all__ = [
    "Amplified",
    "Copies",
    "amplify",
    "batch_norm_order",
    "check_counts",
    "check_images",
    "check_network",
]


class Amplified(Protocol):
    """A network and its variants; variant `j` amplifies the last `counts[j]` BatchNorm layers."""

    @property
    def counts(self) -> tuple[int, ...]: ...

    @property
    def engine(self) -> str:
        """How it is computed, for people: `fork`, or `copies` and why."""
        ...

    def base(self, images: Tensor, first: Sequence[int] = ()) -> tuple[Tensor, Any]:
        """(B, C, H, W) → the plain logits (B, K) and what `variants` needs to go on from there. An engine
        that gains by it runs the variants numbered `first` along; asking for them then costs nothing."""
        ...

    def variants(self, forks: Any, which: Sequence[int], rows: Tensor | None = None) -> Tensor:
        """Logits (len(which), R, K) of the variants numbered `which` for the images numbered `rows`
        (R,), or for all of them."""
        ...


def batch_norm_order(network: nn.Module, example: Tensor) -> list[str]:
    """Names of the BatchNorm layers of `network` in execution order on `example` (B, C, H, W).

    A layer that runs more than once stands where it ran last. Layers that the forward pass does not
    reach (auxiliary heads in eval mode) are not named. Raises `UnsupportedNetwork` where there is none,
    or where one has no running statistics: its output would depend on the other images of the batch.
    """
    order: list[str] = []

    def record(name: str) -> Any:
        def hook(*_: Any) -> None:
            if name in order:
                order.remove(name)
            order.append(name)

        return hook

    layers = {name: m for name, m in network.named_modules() if isinstance(m, _BatchNorm)}
    handles = [layer.register_forward_hook(record(name)) for name, layer in layers.items()]
    try:
        with torch.inference_mode():
            network(example)
    finally:
        for handle in handles:
            handle.remove()
    if not order:
        raise UnsupportedNetwork(
            "IBD-PSC amplifies BatchNorm layers and this network has none; guard it with the other detectors"
        )
    for name in order:
        if layers[name].running_mean is None:
            raise UnsupportedNetwork(
                f"BatchNorm layer {name!r} has no running statistics, so that each image's output depends "
                "on its batch; IBD-PSC cannot guard this network"
            )
    return order


def check_counts(omega: float, counts: Sequence[int], layers: int) -> None:
    """Raise `InputError` unless ω is finite and > 0 and there are counts, all within 1..`layers`."""
    if not (omega > 0 and math.isfinite(omega)):
        raise InputError(f"omega must be a finite number greater than 0, not {omega}")
    if not counts:
        raise InputError("at least one amplified network is needed (n ≥ 1)")
    if min(counts) < 1 or max(counts) > layers:
        raise InputError(f"cannot amplify {list(counts)} of {layers} BatchNorm layers")


def check_network(network: nn.Module) -> None:
    """Raise `InputError` where `network` is in train mode or holds half-precision weights."""
    training = [name or "the network" for name, module in network.named_modules() if module.training]
    if training:
        raise InputError(f"{training[0]} is in train mode; call .eval() first")
    if any(weight.dtype in (torch.float16, torch.bfloat16) for weight in network.parameters()):
        raise InputError("give the network in float32 and ask the engine for reduced precision (dtype=...)")


def check_images(images: Tensor, network: nn.Module) -> None:
    """Raise `InputError` unless `images` are floats (B ≥ 1, ...) on the device of `network`, in eval mode."""
    if network.training:
        raise InputError("the network is in train mode; call .eval() first")
    if not images.is_floating_point():
        raise InputError(f"images must be real floating-point numbers in [0, 1], not {images.dtype}")
    if images.ndim < 2 or len(images) == 0:
        raise InputError(f"images must be a batch of at least one, not of shape {tuple(images.shape)}")
    weight = next(network.parameters(), None)
    if weight is not None and weight.device != images.device:
        raise InputError(f"the images are on {images.device} and the network is on {weight.device}")


def amplify(network: nn.Module, names: Sequence[str], omega: float) -> nn.Module:
    """A copy of `network` with γ and β of the BatchNorm layers `names` multiplied by `omega`.

    Everything else is shared with `network`, not copied. A layer without γ and β (`affine=False`) is given
    γ = ω, β = 0, which is the same thing.
    """
    own = {id(p) for name in names for p in network.get_submodule(name).parameters(recurse=False)}
    tensors = [*network.parameters(), *network.buffers()]
    variant = copy.deepcopy(network, {id(tensor): tensor for tensor in tensors if id(tensor) not in own})
    for name in names:
        layer: Any = variant.get_submodule(name)
        if layer.weight is None:
            layer.weight = nn.Parameter(torch.ones_like(layer.running_mean))
            layer.bias = nn.Parameter(torch.zeros_like(layer.running_mean))
        with torch.no_grad():
            layer.weight.requires_grad_(False).mul_(omega)
            layer.bias.requires_grad_(False).mul_(omega)
    return variant.eval()


class Copies:
    """The variants as n resident networks: the reference engine, and the one for any network at all."""

    def __init__(
        self, network: nn.Module, omega: float, counts: Sequence[int], order: Sequence[str], why: str = ""
    ) -> None:
        """`network` in eval mode; `order` as `batch_norm_order` gives it; `why` it is not a fork.

        Raises `InputError`.
        """
        check_network(network)
        check_counts(omega, counts, len(order))
        self.network = network
        self.counts = tuple(counts)
        self.engine = f"copies ({why})" if why else "copies"
        self.copies = [amplify(network, order[-count:], omega) for count in counts]
        self._one_at_a_time = threading.Lock()  # any network at all may keep things of a batch on itself

    @torch.inference_mode()
    def base(self, images: Tensor, first: Sequence[int] = ()) -> tuple[Tensor, Tensor]:
        check_images(images, self.network)
        with self._one_at_a_time:
            logits: Tensor = self.network(images)
        return logits.float(), images

    @torch.inference_mode()
    def variants(self, forks: Tensor, which: Sequence[int], rows: Tensor | None = None) -> Tensor:
        images = forks if rows is None else forks[rows]
        with self._one_at_a_time:
            return torch.stack([self.copies[number](images).float() for number in which])
