"""A bounded, uniform random sample of what was measured of a stream of images; no image is kept.

Samples of several streams can be merged into one of all of them (`merged`).
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from detectors.base import Floats, InputError, Integers
from detectors.calibration import BenignSample

__all__ = ["Kept", "Reservoir", "merged"]


@dataclass(frozen=True)
class Kept:
    """`sample` is a uniform sample of `seen` images: all of them, or as many as there was room for."""

    seen: int
    sample: BenignSample


class Reservoir:
    """Algorithm R (Vitter, ACM Trans. Math. Software 11, 1985): once full, the n-th row replaces a random
    one with probability `capacity` / n, so that every row seen so far is kept with the same chance.

    A short burst of poisoned images is thereby held to its share of all traffic.
    """

    def __init__(self, capacity: int, seed: int = 0) -> None:
        """Raises `InputError` for a capacity below 1."""
        if capacity < 1:
            raise InputError(f"a reservoir holds at least one row, not {capacity}")
        self.capacity, self.seen = capacity, 0
        self._random = np.random.default_rng(seed)
        self._predicted: Integers = np.zeros(capacity, dtype=np.int64)
        self._evidence: dict[str, Floats] = {}

    def __len__(self) -> int:
        return min(self.seen, self.capacity)

    def add(self, batch: BenignSample) -> None:
        """Take the rows of `batch`, whose evidence has the same names and widths every time."""
        for name, rows in batch.evidence.items():
            if name not in self._evidence:
                self._evidence[name] = np.zeros((self.capacity, rows.shape[1]))
        for row in range(len(batch)):
            place = self.seen if self.seen < self.capacity else int(self._random.integers(self.seen + 1))
            self.seen += 1
            if place < self.capacity:
                self._predicted[place] = batch.predicted[row]
                for name, rows in batch.evidence.items():
                    self._evidence[name][place] = rows[row]

    def kept(self) -> Kept:
        """What `merged` takes."""
        return Kept(self.seen, self.sample())

    def sample(self) -> BenignSample:
        """A copy of what is kept, without labels: nobody knows them."""
        kept = len(self)
        evidence = {name: rows[:kept].copy() for name, rows in self._evidence.items()}
        return BenignSample(self._predicted[:kept].copy(), None, evidence)


def merged(parts: Sequence[Kept], capacity: int, seed: int = 0) -> Kept:
    """A uniform sample, without replacement, of all that the streams of `parts` have seen together.

    An image drawn from all comes from a stream with the odds of what that one has seen and was not drawn yet,
    and within it from its sample, which is uniform. So the sample of a stream that saw ten times as much has
    ten times the weight, however many rows it keeps. It has `capacity` rows, or fewer: never more than the
    shortest sample of a stream that saw more than it kept. Raises `InputError` without anything to merge.
    """
    parts = [part for part in parts if part.seen]
    if not parts:
        raise InputError("there is nothing to merge")
    total = sum(part.seen for part in parts)
    bounds = [len(part.sample) for part in parts if part.seen > len(part.sample)]
    random = np.random.default_rng(seed)
    counts = _draw([part.seen for part in parts], min(capacity, total, *bounds), random)
    chosen = [
        part.sample.take(random.permutation(len(part.sample))[:count])
        for part, count in zip(parts, counts, strict=True)
    ]
    return Kept(total, BenignSample.join(chosen, None))


def _draw(sizes: Sequence[int], count: int, random: np.random.Generator) -> list[int]:
    """How many of `count` draws without replacement fall to each of urns with `sizes` balls."""
    left, drawn = list(sizes), [0] * len(sizes)
    for total in range(sum(sizes), sum(sizes) - count, -1):
        ball = int(random.integers(total))
        urn = 0
        while ball >= left[urn]:
            ball -= left[urn]
            urn += 1
        left[urn] -= 1
        drawn[urn] += 1
    return drawn
