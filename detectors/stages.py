"""In which order to evaluate the terms of a bounded mean: the cheapest on benign images.

Most traffic is benign, so the order is chosen on the calibration sample. Whether a verdict is certain
depends only on which terms are known, so the best sequence of stages is a shortest path from "none known"
to "all known" through the sets of terms.
"""

from collections.abc import Callable, Sequence

import numpy as np
import numpy.typing as npt

from detectors.base import Floats

__all__ = ["STAGE_COST", "cheapest_stages", "decided", "expected_cost"]

STAGE_COST = 0.05
"""What one more stage costs (a synchronisation, a smaller batch), in forward passes per image."""
MOST_UNITS = 8  # 3^8 steps between sets; more terms than that are put into blocks first

ToScore = Callable[[Floats], Floats]


def decided(
    known: Sequence[int], values: Floats, thresholds: Floats, to_score: ToScore
) -> npt.NDArray[np.bool_]:
    """(m,): is the verdict certain once the terms `known` of `values` (m, n) are known?"""
    total, count = values[:, list(known)].sum(1), values.shape[1]
    most, least = (total + count - len(known)) / count, total / count
    certain: npt.NDArray[np.bool_] = (to_score(most) <= thresholds) | (to_score(least) > thresholds)
    return certain


def expected_cost(
    stages: Sequence[Sequence[int]],
    values: Floats,
    thresholds: Floats,
    costs: Floats,
    to_score: ToScore = lambda mean: mean,
    per_stage: float = STAGE_COST,
) -> float:
    """Mean cost per image of evaluating `stages` until certain; `costs` (n,) in forward passes, and
    `per_stage` for each stage that is entered."""
    known: list[int] = []
    total = 0.0
    for stage in stages:
        waiting = 1 - decided(known, values, thresholds, to_score).mean()
        total += step_cost(stage, float(waiting), costs, per_stage)
        known += stage
    return total


def step_cost(stage: Sequence[int], waiting: float, costs: Floats, per_stage: float = STAGE_COST) -> float:
    return waiting * float(costs[list(stage)].sum()) + per_stage * (waiting > 0)


def cheapest_stages(
    values: Floats, thresholds: Floats, costs: Floats, to_score: ToScore = lambda mean: mean
) -> list[list[int]]:
    """Stages for terms like `values` (m, n) in [0, 1] of benign images with `thresholds` (m,).

    The cheapest of all ordered partitions for n ≤ 8; for more terms, of those that keep blocks of terms
    with similar benign values together.
    """
    units = [
        block.tolist() for block in np.array_split(np.argsort(values.mean(0), kind="stable"), MOST_UNITS)
    ]
    units = [unit for unit in units if unit]
    everything = (1 << len(units)) - 1

    def members(chosen: int) -> list[int]:
        return [term for bit, unit in enumerate(units) if chosen >> bit & 1 for term in unit]

    waiting = [
        1 - float(decided(members(s), values, thresholds, to_score).mean()) for s in range(everything + 1)
    ]
    best: list[tuple[float, list[list[int]]]] = [(0.0, [])]
    for known in range(1, everything + 1):
        ways = []
        stage = known
        while stage:  # every non-empty subset of `known` may have been the last stage
            before = known ^ stage
            cost = best[before][0] + step_cost(members(stage), waiting[before], costs)
            ways.append((cost, [*best[before][1], members(stage)]))
            stage = (stage - 1) & known
        best.append(min(ways, key=lambda way: way[0]))
    return best[everything][1]
