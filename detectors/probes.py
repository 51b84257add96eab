"""The questions of the consistency profile: named changes to an image, each with what it needs and costs.

A trigger answers them abnormally in either direction: a static patch survives what benign content does
not, a fragile one (a warp, a faint pattern) dies under what benign content survives. `docs/results/probes.md`
has what each was worth.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from itertools import accumulate
from typing import Literal

from detectors import changes
from detectors.base import Access, InputError
from detectors.copies import Change

__all__ = ["DEFAULT_PRESET", "PRESETS", "PROBES", "Ladder", "Preset", "Probe", "probes_named"]

Kind = Literal["transform", "blend", "scale"]
Preset = Literal["fast", "balanced", "thorough"]


@dataclass(frozen=True)
class Probe:
    """One question. `apply`: images (B, C, H, W) in [0, 1] → changed images of the same shape and range.

    It costs `cost` forward passes and needs an answer of the classifier: a label will do (`needs`), and
    log-odds say more. A calibration is bound to `strength`: another one is another probe.
    """

    name: str
    strength: str
    apply: Change
    kind: Kind = "transform"
    cost: float = 1.0
    needs: Access = Access.LABELS


_ALL = (
    Probe("flip", "left and right", changes.flip),
    Probe("over", "top and bottom", changes.turn_over),
    Probe("blur", "3×3 binomial", changes.blur),
    Probe("median", "3×3", changes.median),
    Probe("shift", "1/16 of the side", changes.shift),
    Probe("back", "-1/16 of the side", partial(changes.move, direction=-1, share=1 / 16)),
    Probe("far", "1/8 of the side", partial(changes.move, direction=1)),
    Probe("far-back", "-1/8 of the side", partial(changes.move, direction=-1)),
    Probe("rotate", "12 degrees", changes.rotate),
    Probe("rotate-back", "-12 degrees", partial(changes.rotate, degrees=-12.0)),
    Probe("turn", "25 degrees", partial(changes.rotate, degrees=25.0)),
    Probe("turn-back", "-25 degrees", partial(changes.rotate, degrees=-25.0)),
    Probe("within", "to 0.8, about the middle", changes.shrink_within),
    Probe("zoom", "to 1.15, about the middle", partial(changes.shrink_within, share=1.15)),
    Probe("shrink", "to 0.75", changes.shrink),
    Probe("halve", "to 0.5", partial(changes.shrink, share=0.5)),
    Probe("warp", "1 pixel of 32, seed 20240301", changes.warp),
    Probe("noise", "0.06 of seed 20240229", changes.noise),
    Probe("more-noise", "0.12 of seed 20240229", partial(changes.noise, strength=2.0)),
    Probe("border", "outermost 1/8", changes.border),
    Probe("middle", "1/2 of the side", changes.middle),
    Probe("grey", "mean of the channels", changes.grey),
    Probe("brighten", "by 0.2", changes.brighten),
    Probe("dim", "to 0.5", partial(changes.scale, factor=0.5), "scale"),
    Probe("posterise", "8 levels", changes.posterise),
    Probe("mix", "half itself, upside down", changes.mix, "blend"),
    Probe("x3", "pixels times 3", partial(changes.scale, factor=3.0), "scale"),
    Probe("x7", "pixels times 7", partial(changes.scale, factor=7.0), "scale"),
)

PROBES = {probe.name: probe for probe in _ALL}
"""Every probe there is, by name."""


def probes_named(names: Sequence[str]) -> tuple[Probe, ...]:
    """Raises `InputError` for an unknown name, for one that comes twice and for none at all."""
    unknown = [name for name in names if name not in PROBES]
    if unknown:
        raise InputError(f"unknown probe {unknown[0]!r}; known: {', '.join(PROBES)}")
    if not names or len(set(names)) < len(names):
        raise InputError("name one probe or more, each once")
    return tuple(PROBES[name] for name in names)


@dataclass(frozen=True)
class Ladder:
    """Probes asked in turns: those of the first rung of every image, those of the next only of images that
    the first has not cleared. A rung clears the share `clears` of benign images, those most usual so far."""

    rungs: tuple[tuple[Probe, ...], ...]
    clears: float = 0.5

    def __post_init__(self) -> None:
        """Raises `InputError`."""
        if not self.rungs or not all(self.rungs):
            raise InputError("a ladder needs rungs, and each of them a probe")
        if not 0 < self.clears < 1:
            raise InputError(f"a rung clears a share of benign images between 0 and 1, not {self.clears}")

    @property
    def probes(self) -> tuple[Probe, ...]:
        return tuple(probe for rung in self.rungs for probe in rung)

    @property
    def ends(self) -> tuple[int, ...]:
        """How many probes have been asked after each rung."""
        return tuple(accumulate(map(len, self.rungs)))

    @classmethod
    def of(cls, *rungs: Sequence[str], clears: float = 0.5) -> "Ladder":
        """By the probes' names."""
        probes_named([name for rung in rungs for name in rung])
        return cls(tuple(tuple(PROBES[name] for name in rung) for rung in rungs), clears)


PRESETS: dict[Preset, Ladder] = {
    "fast": Ladder.of(["rotate", "noise"], ["flip", "within"], clears=0.6),
    "balanced": Ladder.of(["rotate", "noise"], ["flip", "within", "shift", "blur"], clears=0.6),
    "thorough": Ladder.of(["flip", "blur", "shift", "rotate", "shrink", "noise"]),
}
"""What `docs/results/probes.md` led to. The first rung decides what all others get to see: with `shrink` in
the place of `noise` it clears warped images. `thorough` has no gates."""
DEFAULT_PRESET: Preset = "thorough"
"""The one that was judged on colour images too; the ladders were not yet."""
