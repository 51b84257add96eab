"""Bets against the claim that traffic is still like the calibration sample (conformal test martingales).

A bet is a factor whose mean is at most 1 while the claim holds, whatever happened before. Products of
factors are test martingales (Vovk, Nouretdinov and Gammerman, "Testing exchangeability on-line", ICML
2003); restarted whenever they fall below 1 they notice a change that comes late (Vovk et al., "Retrain or
not retrain: conformal test martingales for change-point detection", COPA 2021, section 3).

What is new here is the reference. Conformal p-values against one fixed sample of m scores are uniform
only on average over samples: given the sample they are off by 1/√m, and a test that runs long enough
takes that for drift. So every image that was judged joins the reference (`RankUrn`, `EventUrn`).
"""

import math
from bisect import bisect_left, bisect_right
from collections.abc import Sequence
from itertools import pairwise
from random import Random

import numpy as np

from detectors.base import Floats

__all__ = ["ODDS", "P_VALUE_BETS", "Cusum", "EventUrn", "RankUrn", "event_factors", "p_value_factors"]

BINS = 256
"""Most cells of one urn: what bounds its memory. A p-value below 1/BINS is drawn, not observed."""
POWERS = (0.3, 0.6, 0.85, 1.2, 2.0)
"""κ of the power bets κ·p^(κ−1): below 1 against scores that rise, above 1 against scores that fall."""
P_VALUE_BETS = len(POWERS) + 2
ODDS = (1.5, 4.0, 12.0, 40.0)
"""By how much a bet on an event lengthens its odds."""
SMALLEST_P = 1e-12


class RankUrn:
    """Smoothed p-values of scores that arrive one by one, against m benign scores and all scores before.

    The m scores leave m + 1 gaps. While all scores are exchangeable, the next falls into gap j with
    probability (c_j + 1)/(m + 1 + n), where c_j of the n before fell into it (Pólya's urn). A p-value that
    is smoothed within its gap is therefore exactly uniform on [0, 1], and independent of those before.
    Ties are broken at random, by numbers that the benign scores keep. Neighbouring gaps share a cell,
    which keeps all of this true.
    """

    def __init__(self, scores: Floats, random: Random) -> None:
        """`scores` (m,): benign, not NaN, in any order; m ≥ 0."""
        ties = np.array([random.random() for _ in range(len(scores))])
        order = np.lexsort((ties, scores))
        self._scores, self._ties = scores[order].tolist(), ties[order].tolist()
        self._random = random
        gaps = len(scores) + 1
        cells = min(BINS, gaps)
        self._start = [gaps * cell // cells for cell in range(cells + 1)]  # first gap of each cell
        self.restart()

    def restart(self) -> None:
        """Forget all scores but the benign ones."""
        self._weights = [after - before for before, after in pairwise(self._start)]
        self._total = self._start[-1]

    def p_value(self, score: float) -> float:
        """The p-value of `score`, in [0, 1], which then joins the reference. NaN counts as the highest."""
        return self.draw(self.cell(score))

    def cell(self, score: float) -> int:
        """Which of `BINS` cells, or fewer, `score` falls into. NaN counts as the highest."""
        return bisect_right(self._start, self._gap(score)) - 1

    def draw(self, cell: int) -> float:
        """The p-value of a score that fell into `cell`, which then joins the reference."""
        above, here = sum(self._weights[:cell]), self._weights[cell]
        p = (above + self._random.random() * here) / self._total
        self._weights[cell] += 1
        self._total += 1
        return p

    def _gap(self, score: float) -> int:
        """How many benign scores lie above, 0..m."""
        if math.isnan(score):
            return 0
        first, last = bisect_left(self._scores, score), bisect_right(self._scores, score)
        return len(self._scores) - bisect_left(self._ties, self._random.random(), first, last)


class EventUrn:
    """The chance that the next score is above a fixed threshold: `RankUrn` with two cells.

    With ties at the threshold the chance is a little less than what is said, never more.
    """

    def __init__(self, above: float, count: int) -> None:
        """`above` of `count` benign scores lie above the threshold, or are taken to: no whole number where a
        share of the ties is settled by lot."""
        self._prior = above + 1, count + 1
        self.restart()

    def restart(self) -> None:
        """Forget all scores but the benign ones."""
        self._hits, self._total = self._prior

    def chance(self, happened: bool) -> float:
        """The chance of the event, in (0, 1], before it was known whether it `happened`; then count it."""
        chance = self._hits / self._total
        self._hits += happened
        self._total += 1
        return chance


def p_value_factors(p: float) -> list[float]:
    """`P_VALUE_BETS` factors; each has mean 1 for uniform `p` in [0, 1]. Besides the power bets, two beta
    densities: B(2, 2) against scores that gather in the middle, B(½, ½) against scores that leave it."""
    p = min(max(p, SMALLEST_P), 1 - SMALLEST_P)
    powers = [power * p ** (power - 1) for power in POWERS]
    return [*powers, 6 * p * (1 - p), 1 / (math.pi * math.sqrt(p * (1 - p)))]


def event_factors(happened: bool, chance: float) -> list[float]:
    """One factor for each of `ODDS`: the likelihood ratio of longer odds against `chance` in (0, 1]. Its
    mean is at most 1 where the event has at most this chance."""
    ratios = []
    for odds in ODDS:
        normal = 1 - chance + odds * chance
        ratios.append(odds / normal if happened else 1 / normal)
    return ratios


class Cusum:
    """Several bets side by side, each restarted from 1 whenever it has lost: M ← max(M, 1) · factor.

    `value`, the mean of the M, stays below the Shiryaev–Roberts sum R ← (R + 1) · factor, and R_n − n is a
    supermartingale while the claim holds. By optional stopping the chance that `value` reaches c within
    the first n images is at most n / c.
    """

    def __init__(self, bets: int) -> None:
        self._bets = bets
        self.restart()

    def restart(self) -> None:
        self._capital, self._began, self.value = [0.0] * self._bets, [0] * self._bets, 0.0

    def update(self, factors: Sequence[float], number: int) -> float:
        """Take the outcome of image `number`; returns the new `value`."""
        capital, began = self._capital, self._began
        for bet, factor in enumerate(factors):
            if capital[bet] <= 1:
                capital[bet], began[bet] = 1.0, number
            capital[bet] *= factor
        self.value = sum(capital) / len(capital)
        return self.value

    @property
    def began(self) -> int:
        """Since which image the best bet has been winning: an estimate of when the change came."""
        best = max(range(len(self._capital)), key=self._capital.__getitem__)
        return self._began[best]
