"""Numbers of decisions: they sort by time, and several gateways can give them without asking each other.

The upper bits are Unix time in microseconds, the lower 12 are random: 63 bits in all until the year 2041.
"""

import secrets
from datetime import datetime
from threading import Lock

__all__ = ["DecisionIds", "first_id"]

BITS = 12
HIGHEST = 2**63 - 1  # of a database's integers


def first_id(at: datetime) -> int:
    """The lowest number that a decision of the time `at` (aware) or later can have, as far as a database can
    hold it: years that no decision is of are as far away as any."""
    return min(max(round(at.timestamp() * 1_000_000) << BITS, 0), HIGHEST)


class DecisionIds:
    """Gives each decision of this process a number, always a higher one; any thread may ask."""

    def __init__(self) -> None:
        self._last, self._lock = 0, Lock()

    def next(self, at: float) -> int:
        """A number for a decision of the time `at`, Unix seconds."""
        drawn = (round(at * 1_000_000) << BITS) | secrets.randbits(BITS)
        with self._lock:
            self._last = max(drawn, self._last + 1)
            return self._last
