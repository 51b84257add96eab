"""A bounded, uniform random sample of what was measured of a stream of images; no image is kept."""

import numpy as np

from detectors.base import Floats, InputError, Integers
from detectors.calibration import BenignSample

__all__ = ["Reservoir"]


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

    def sample(self) -> BenignSample:
        """A copy of what is kept, without labels: nobody knows them."""
        kept = len(self)
        evidence = {name: rows[:kept].copy() for name, rows in self._evidence.items()}
        return BenignSample(self._predicted[:kept].copy(), None, evidence)
