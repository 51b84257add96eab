"""Runs of nearly the same image from one caller: what searching for a trigger that passes looks like.

So does a camera that looks at an empty street; so this is told, and nothing is refused for it. Kept of an
image are the mean brightnesses of an 8×8 grid, of a caller's last images only, in bounded memory.
"""

from collections import OrderedDict
from dataclasses import dataclass, field
from functools import lru_cache
from itertools import pairwise

import numpy as np
import numpy.typing as npt

__all__ = ["MEMORY", "NearDuplicates", "signatures"]

GRID = 8
MEMORY = 64  # images remembered of one caller
MOST_CALLERS = 1024  # × 64 signatures of 256 bytes: 16 MiB at most

Signatures = npt.NDArray[np.float32]
_ONES = np.ones(GRID * GRID, dtype=np.float32)


def signatures(images: npt.NDArray[np.float32]) -> Signatures:
    """(B, GRID²) float32: mean brightness in each cell of a grid over `images` (B, C, H, W) in [0, 1].

    A few changed pixels, noise and small shifts hardly move it. Sides shorter than the grid repeat pixels.
    """
    count, channels, height, width = images.shape
    grey: Signatures = images[:, 0]
    if channels > 1:
        grey = np.add.reduce(images, axis=1, dtype=np.float32)
    cells = _means(height, channels) @ grey @ _means(width).T
    return cells.reshape(count, GRID * GRID).astype(np.float32, copy=False)


@lru_cache(maxsize=16)
def _means(side: int, channels: int = 1) -> npt.NDArray[np.float32]:
    """(GRID, side): a product with it takes the mean within each cell of a side, and of `channels` sums."""
    edges = [*(np.arange(GRID) * side // GRID), side]
    means = np.zeros((GRID, side), dtype=np.float32)
    for cell, (first, end) in enumerate(pairwise(edges)):
        cells = slice(first, max(end, first + 1))
        means[cell, cells] = 1 / (channels * max(end - first, 1))
    return means


@dataclass
class _Past:
    recent: npt.NDArray[np.float32] = field(
        default_factory=lambda: np.full((MEMORY, GRID * GRID), np.inf, dtype=np.float32)
    )
    place: int = 0
    in_run: bool = False


class NearDuplicates:
    """Remembers every caller's last images, and tells when many of them are nearly the same."""

    def __init__(self, run: int, distance: float) -> None:
        """A run is an image with `run` near-duplicates among the caller's last `MEMORY`; near is a mean
        absolute difference of at most `distance` between signatures, in brightness from 0 to 1."""
        self.run, self.distance = run, distance
        self._pasts: OrderedDict[str, _Past] = OrderedDict()

    def observe(self, caller: str, seen: Signatures) -> tuple[int, bool]:
        """Take the signatures (B, GRID²) of a request: how many are near-duplicates of an image
        before, and whether a run begins with one of them. A run ends when few are left in memory."""
        past = self._pasts.get(caller)
        if past is None:
            past = self._pasts[caller] = _Past()
        self._pasts.move_to_end(caller)
        if len(self._pasts) > MOST_CALLERS:
            self._pasts.popitem(last=False)
        near, begins, most = 0, False, self.distance * GRID * GRID
        for signature in seen:
            apart = np.abs(past.recent - signature) @ _ONES
            alike = int(np.count_nonzero(apart <= most))
            near += alike > 0
            if alike >= self.run and not past.in_run:
                past.in_run = begins = True
            elif alike < self.run // 2:
                past.in_run = False
            past.recent[past.place] = signature
            past.place = (past.place + 1) % MEMORY
        return near, begins
