"""What a drift monitor has seen, as sums: those of several replicas add up to what all of them have seen."""

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field

import numpy as np

from detectors.base import InputError, Integers

__all__ = ["Event", "Tally"]

Event = tuple[int, int]
"""Of one image, for one test: the group of labels it belongs to, by its first, and the cell it fell into."""


@dataclass
class Tally:
    """How often what was seen since a calibration: `images`, their labels, the labels of those rejected, and
    for each test, by its name, its events. `ended`: detectors whose scores are exact no longer."""

    images: int = 0
    predicted: Counter[int] = field(default_factory=Counter)
    rejected: Counter[int] = field(default_factory=Counter)
    events: dict[str, Counter[Event]] = field(default_factory=dict)
    ended: set[str] = field(default_factory=set)

    def __add__(self, other: "Tally") -> "Tally":
        names = {*self.events, *other.events}
        events = {
            name: self.events.get(name, Counter()) + other.events.get(name, Counter()) for name in names
        }
        return Tally(
            self.images + other.images,
            self.predicted + other.predicted,
            self.rejected + other.rejected,
            events,
            self.ended | other.ended,
        )

    def since(self, before: "Tally") -> "Tally":
        """What came after `before`, an earlier state of the same tally."""
        events = {name: seen - before.events.get(name, Counter()) for name, seen in self.events.items()}
        return Tally(
            self.images - before.images,
            self.predicted - before.predicted,
            self.rejected - before.rejected,
            events,
            set(self.ended),
        )

    def to_arrays(self) -> dict[str, Integers]:
        """For storage: (n, 2) or (n, 3) integers each, with the count last. An ended detector has no rows."""
        arrays = {
            "images": np.array([self.images], dtype=np.int64),
            "predicted": _rows(self.predicted),
            "rejected": _rows(self.rejected),
        }
        arrays |= {f"events {name}": _rows(seen) for name, seen in self.events.items()}
        return arrays | {f"ended {name}": np.zeros(0, dtype=np.int64) for name in self.ended}

    @classmethod
    def from_arrays(cls, arrays: Mapping[str, Integers]) -> "Tally":
        """Raises `InputError` for what `to_arrays` does not give."""
        try:
            tally = cls(int(arrays["images"][0]))
            tally.predicted = Counter({int(label): int(count) for label, count in arrays["predicted"]})
            tally.rejected = Counter({int(label): int(count) for label, count in arrays["rejected"]})
            for name, rows in arrays.items():
                kind, _, rest = name.partition(" ")
                if kind == "events":
                    tally.events[rest] = Counter({(int(g), int(c)): int(count) for g, c, count in rows})
                elif kind == "ended":
                    tally.ended.add(rest)
        except (KeyError, IndexError, TypeError, ValueError) as error:
            raise InputError(f"this is no tally: {error!r}") from error
        return tally


def _rows(counter: Mapping[int, int] | Mapping[Event, int]) -> Integers:
    rows = [(*(key if isinstance(key, tuple) else (key,)), count) for key, count in counter.items()]
    width = len(rows[0]) if rows else 2
    return np.array(sorted(rows), dtype=np.int64).reshape(-1, width)
