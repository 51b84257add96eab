"""Does the benign sample carry the trigger itself? Suspects among the images, and how sure one can be.

Whoever supplied a backdoored classifier may have supplied the "benign" images too. Triggered ones all answer
with the target label, so they pile up under one predicted label. Two traces of that:

- *profiles*: how far each image's consistency profile (`detectors.profile`) lies from what images of the
  *other* predicted labels are like: (v − μ)ᵀ (W + B)⁻¹ (v − μ) with the mean μ of the other labels' means,
  the covariance W within and B between them. The label's own images have no say, so that triggered images
  stand out even where they are the majority of their label. Suspect is whose log-distance lies above Tukey's
  inner fence, Q3 + 1.5 (Q3 − Q1) (Exploratory Data Analysis, 1977), under a label with far more of these
  than the others have, and where they are apart from the rest: some benign labels have a long tail, but it
  thins out.
- *labels*, where true ones are given: a predicted label that is wrong much more often than any other. Where
  this is strong and profiles tell nothing, suspect is every image wrongly predicted so.

How sure: the probability of so many under one label, were it like the others (binomial), times the number
of labels that were looked at.
"""

from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from typing import Any, Literal

import numpy as np
import numpy.typing as npt

from detectors.base import Floats, Integers
from detectors.binomial import binomial_tail
from detectors.calibration import BenignSample
from detectors.profile import ledoit_wolf

__all__ = ["FOUND", "Screening", "Strength", "Trace", "distances_from_others", "screen"]

Strength = Literal["unknown", "none", "weak", "strong"]

FOUND: tuple[Strength, ...] = ("weak", "strong")
STRONG, WEAK = 1e-4, 1e-2  # chances of a false alarm
FENCE = 1.5  # Tukey's inner fence, in interquartile ranges
DIP = 0.5  # suspects are a cluster of their own: this far below the fence there are half as many at most
LEAST_LABELS = 4  # fewer do not tell how much labels differ from each other
ROUNDS = 3  # suspects hide each other: what is usual is learnt again without them

Elsewhere = Callable[[Floats, Floats], float]
"""(hits, counts) of the other labels → the share that is taken for usual."""


@dataclass(frozen=True)
class Trace:
    """What one kind of trace shows: `images` of the `of` images predicted as `label` stand out, against a
    share `elsewhere` under other labels; `p_value` is the chance of that on clean images."""

    strength: Strength
    label: int | None = None
    images: int = 0
    of: int = 0
    elsewhere: float = 0.0
    p_value: float = 1.0


@dataclass(frozen=True)
class Screening:
    """`suspects` are positions in the sample, ascending: by `profiles` where these are any evidence, else by
    `labels` where these are strong. `left_out`: they were not used for the calibration."""

    images: int
    profiles: Trace
    labels: Trace
    suspects: tuple[int, ...] = ()
    left_out: bool = False

    @property
    def strength(self) -> Strength:
        """The stronger of the two traces."""
        order: list[Strength] = ["unknown", "none", "weak", "strong"]
        return max(self.profiles.strength, self.labels.strength, key=order.index)

    @property
    def label(self) -> int | None:
        """The suspected target label, by the stronger trace."""
        first, second = sorted((self.profiles, self.labels), key=lambda trace: trace.p_value)
        return first.label if first.label is not None else second.label

    @property
    def share(self) -> float:
        """Estimated share of triggered images in the sample, [0, 1]."""
        if self.suspects:
            return len(self.suspects) / self.images
        if self.labels.strength in FOUND:
            return max(0.0, self.labels.images - self.labels.elsewhere * self.labels.of) / self.images
        return 0.0

    def without_suspects(self, sample: BenignSample) -> BenignSample:
        """`sample` without the suspects where they are left out, else all of it."""
        if not self.left_out:
            return sample
        return sample.take(np.setdiff1d(np.arange(len(sample)), self.suspects))

    def sentences(self) -> list[str]:
        """What an operator should know; empty where nothing was found."""
        found = []
        done = "they were left out" if self.left_out else "they were used all the same"
        if self.profiles.strength in FOUND:
            carry = "may carry" if self.profiles.strength == "weak" else "very likely carry"
            found.append(
                f"{len(self.suspects)} of the {self.images} images, all predicted as label "
                f"{self.profiles.label}, {carry} a trigger: {done}; look at them (`suspects`)"
            )
        if self.labels.strength in FOUND:
            found.append(
                f"{self.labels.images} of the {self.labels.of} images predicted as label {self.labels.label} "
                f"have another true label, against {self.labels.elsewhere:.0%} at most elsewhere: either "
                "images carry a trigger for it, or the classifier is poor at it"
                + (f"; {done}" if self.suspects and self.profiles.strength not in FOUND else "")
            )
        return found

    def to_json(self, before: int = 0) -> dict[str, Any]:
        """`before`: so many images came before the sample and were not measured; positions count them."""
        return {
            "strength": self.strength, "label": self.label, "share": self.share,
            "profiles": asdict(self.profiles), "labels": asdict(self.labels),
            "suspects": [before + position for position in self.suspects],
            "left_out": self.left_out, "sentences": self.sentences(),
        }  # fmt: skip


def screen(features: Floats | None, predicted: Integers, labels: Integers | None) -> Screening:
    """Look for triggered images in a benign sample: profiles (m, d) or None, predictions (m,), true labels
    (m,) or None."""
    profiles, suspects = Trace("unknown"), np.zeros(len(predicted), dtype=np.bool_)
    if features is not None and np.isfinite(features).all():
        profiles, suspects = _profiles_trace(features, predicted)
    trace = Trace("unknown") if labels is None else _labels_trace(predicted, labels)
    if labels is not None and trace.strength == "strong" and profiles.strength not in FOUND:
        suspects = (predicted == trace.label) & (predicted != labels)
    return Screening(len(predicted), profiles, trace, tuple(np.flatnonzero(suspects).tolist()))


def _profiles_trace(features: Floats, predicted: Integers) -> tuple[Trace, npt.NDArray[np.bool_]]:
    suspects = np.zeros(len(predicted), dtype=np.bool_)
    trace = Trace("unknown")
    for _ in range(ROUNDS):
        if len(np.unique(predicted[~suspects])) < LEAST_LABELS:
            return trace, suspects
        distances = np.log(distances_from_others(features, predicted, ~suspects) + 1e-12)
        low, high = np.quantile(distances[~suspects], [0.25, 0.75])
        if high - low < 1e-9:  # images that are all alike
            return Trace("none"), np.zeros_like(suspects)
        ranges = (distances - high) / (high - low)
        outside = ranges > FENCE
        apart = [c for c in np.unique(predicted).tolist() if _stand_apart(ranges[predicted == c])]
        trace = _most_unusual(predicted, outside, _pooled_share, apart)
        if trace.strength not in FOUND:
            return trace, np.zeros_like(suspects)
        suspects = outside & (predicted == trace.label)
    return trace, suspects


def _stand_apart(ranges: Floats) -> bool:
    """Of one label: are those beyond the fence a cluster of their own, beside images that are like most?
    A label without any of these is another kind of label, and no trigger need be the reason."""
    outside, near = (ranges > FENCE).sum(), ((ranges > FENCE - DIP) & (ranges <= FENCE)).sum()
    return bool(outside > 2 * near and (ranges <= 0).any())


def distances_from_others(features: Floats, predicted: Integers, trusted: npt.NDArray[np.bool_]) -> Floats:
    """(m,) squared distance of each profile (m, d) from the `trusted` (m,) ones of all other labels."""
    distances = np.zeros(len(predicted))
    labels = np.unique(predicted[trusted])
    means = np.stack([features[trusted & (predicted == label)].mean(0) for label in labels])
    place = np.searchsorted(labels, predicted).clip(max=len(labels) - 1)
    residuals = features - means[place]
    for label in np.unique(predicted):
        mine, others = predicted == label, labels != label
        centre = means[others].mean(0)
        within = ledoit_wolf(residuals[trusted & ~mine])
        between = ledoit_wolf(means[others] - centre)
        covariance = within + between * (1 + 2 / others.sum())  # of a new label's mean about their mean
        covariance += np.eye(len(covariance)) * (1e-6 * np.trace(covariance) / len(covariance) + 1e-9)
        apart = features[mine] - centre
        distances[mine] = np.einsum("ij,ij->i", apart, np.linalg.solve(covariance, apart.T).T)
    return distances


def _labels_trace(predicted: Integers, labels: Integers) -> Trace:
    if len(np.unique(predicted)) < LEAST_LABELS:
        return Trace("unknown")
    return _most_unusual(predicted, predicted != labels, _largest_share, np.unique(predicted).tolist())


def _pooled_share(hits: Floats, counts: Floats) -> float:
    return float((hits.sum() + 1) / (counts.sum() + 1))


def _largest_share(hits: Floats, counts: Floats) -> float:
    """Labels differ in how hard they are: only more than the hardest of the others is unusual."""
    return float(((hits + 1) / (counts + 1)).max())


def _most_unusual(
    predicted: Integers, hits: npt.NDArray[np.bool_], elsewhere: Elsewhere, eligible: Sequence[int]
) -> Trace:
    """The label, of those `eligible`, with the least likely number of `hits` (m,)."""
    labels, place = np.unique(predicted, return_inverse=True)
    counts = np.bincount(place).astype(np.float64)
    found = np.bincount(place, hits).astype(np.float64)
    traces = [Trace("none")]
    for number, label in enumerate(labels.tolist()):
        if label not in eligible:
            continue
        rest = np.arange(len(labels)) != number
        share = elsewhere(found[rest], counts[rest])
        p_value = min(1.0, len(labels) * binomial_tail(int(found[number]), int(counts[number]), share))
        strength: Strength = "strong" if p_value <= STRONG else "weak" if p_value <= WEAK else "none"
        traces.append(Trace(strength, label, int(found[number]), int(counts[number]), share, p_value))
    return min(traces, key=lambda trace: trace.p_value)
