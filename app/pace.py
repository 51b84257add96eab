"""How much to put into one batch: no more than the device needs to be about as fast as it can be.

A larger batch makes all in it wait for the last. A GPU works it off in hardly more time; a CPU that is busy
with eight images takes four times as long for thirty-two, and whoever came first has waited for nothing.
Which it is, is measured while it works.
"""

from dataclasses import dataclass

__all__ = ["Pace"]

TOLERANCE = 0.1  # so much slower per weight may a smaller batch be, and is taken all the same
MEMORY = 0.2  # how much the newest batch counts in the mean of its size,
LONG_AGO = 0.5  # and where the one before was more than `EVERY` choices ago
REACH = 3  # steps, of a factor of two each, to look beyond what is no better
EVERY = 32  # of so many choices, one looks whether another size has become better


@dataclass(slots=True)
class _Seen:
    batches: int = 0
    cost: float = 0.0  # seconds per weight, running mean
    last: int = 0  # at which choice it was seen

    def add(self, cost: float, now: int) -> None:
        weight = LONG_AGO if now - self.last > EVERY else MEMORY
        self.batches, self.last = self.batches + 1, now
        if self.batches == 1:
            self.cost = cost
        elif self.batches == 2:
            self.cost = min(cost, self.cost)  # the first of a size may have prepared something
        else:
            self.cost += weight * (cost - self.cost)


class Pace:
    """Learns the cost of batches by their size, in powers of two, and says how heavy the next may be.

    It takes the smallest size that is within `TOLERANCE` of the cheapest known one, and tries others up to
    `REACH` steps away: those that it does not know at once, the rest now and then, larger ones more seldom.
    """

    def __init__(self, most: int) -> None:
        """`most`: the heaviest that a batch may be."""
        self.most = most
        self._largest = _size(most)
        self._seen: dict[int, _Seen] = {}
        self._tried: set[int] = set()
        self._choices = 0

    @property
    def limit(self) -> int:
        """The weight up to which a batch is worth waiting for; `most` while nothing is known."""
        return self._weight(self._best()) if self._seen else self.most

    def choose(self, waiting: int) -> int:
        """How heavy the next batch may be, where `waiting` wait."""
        if not self._seen:
            return self.most
        best = self._best()
        other = self._other(best, _size(waiting))
        return self._weight(best if other is None else other)

    def _other(self, best: int, largest: int) -> int | None:
        """A size to look at in place of `best`; none above `largest`, for which too few wait."""
        self._choices += 1
        least, most = max(0, best - REACH), min(best + REACH, largest, self._largest)
        around = sorted({*range(least, most + 1)} - {best}, key=lambda size: abs(size - best))
        # Once each: no batch has a size that is less than its items weigh.
        unknown: list[int] = [size for size in around if size not in self._seen and size not in self._tried]
        if unknown:
            self._tried.add(unknown[0])
            return unknown[0]
        if self._choices % EVERY:
            return None
        overdue = {
            size: (self._choices - self._seen[size].last) / (1 << max(0, size - best))
            for size in around
            if size in self._seen
        }
        return max(overdue, key=overdue.__getitem__, default=None)

    def learn(self, weight: int, seconds: float) -> None:
        """A batch of `weight` took `seconds`."""
        self._seen.setdefault(_size(weight), _Seen()).add(seconds / weight, self._choices)

    def _best(self) -> int:
        enough = (1 + TOLERANCE) * min(seen.cost for seen in self._seen.values())
        return min(size for size, seen in self._seen.items() if seen.cost <= enough)

    def _weight(self, size: int) -> int:
        return min(1 << size, self.most)


def _size(weight: int) -> int:
    """The power of two that `weight` is, rounded up."""
    return (weight - 1).bit_length()
