"""What the power probe found: per implanted backdoor, per detector, and in words."""

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

__all__ = ["Power", "PowerReport", "Probed"]


CAVEAT = (
    "Take it as a hint: a backdoor that was trained in differs from one that was implanted, and near a small "
    "budget the share caught can be far from this one (docs/adr/0006)."
)


@dataclass(frozen=True)
class Power:
    """One detector against one implanted backdoor. `tpr`: share of triggered images rejected at α, had it
    all of the budget; `auroc` over all benign images, `target_auroc` over those predicted as the target
    (None where there are none)."""

    tpr: float
    auroc: float
    target_auroc: float | None


@dataclass(frozen=True)
class Probed:
    """One implanted backdoor. `success` and `agreement` are measured on images that it was not tuned on:
    the share of triggered images that get the target label, and of clean ones that keep their answer.
    `held` says that it is a backdoor at all. `caught`: share of triggered images that the detectors together
    reject at α; None where it did not hold, or time ran out first."""

    trigger: str
    target: int
    steps: int
    success: float
    agreement: float
    held: bool
    caught: float | None
    detectors: Mapping[str, Power]


@dataclass(frozen=True)
class PowerReport:
    """`probes` in the order in which they were made, `left_out` those that time did not suffice for."""

    alpha: float
    implanted_on: int
    calibrated_on: int
    triggered: int
    seconds: float
    probes: tuple[Probed, ...]
    left_out: tuple[tuple[str, int], ...]

    @property
    def judged(self) -> tuple[Probed, ...]:
        """The probes whose backdoor held, and that the detectors were run on."""
        return tuple(probe for probe in self.probes if probe.caught is not None)

    @property
    def caught(self) -> float | None:
        """Mean share caught over all judged probes; None without any."""
        shares = [probe.caught for probe in self.probes if probe.caught is not None]
        return float(np.mean(shares)) if shares else None

    def summary(self) -> str:
        """What an operator may take from it, in words."""
        judged = sorted(self.judged, key=lambda probe: probe.caught or 0.0)
        if not judged:
            return (
                f"no backdoor could be implanted and judged in {self.seconds:.0f} s: this says nothing about "
                "power; allow more seconds, or give more benign images"
            )
        worst, best = judged[0], judged[-1]
        return (
            f"of the images that trigger a backdoor implanted in a copy of this model, {self.caught:.0%} are "
            f"caught at a false-positive budget of {self.alpha:.2%}; over {len(judged)} implanted backdoors "
            f"from {worst.caught:.0%} ({worst.trigger}, target {worst.target}) to {best.caught:.0%} "
            f"({best.trigger}, target {best.target}). {CAVEAT}"
        )

    def to_json(self) -> dict[str, Any]:
        content = asdict(self)
        content["left_out"] = [{"trigger": kind, "target": label} for kind, label in self.left_out]
        return content | {"caught": self.caught, "summary": self.summary()}
