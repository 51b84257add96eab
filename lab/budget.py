"""Is the false-positive budget kept? Many random splits of benign images into calibration and judged ones.

Everything is measured once (`lab.evidence`); a split only draws from it. For each budget α the mean
false-positive rate over the splits is compared with α, for every detector alone and for all together.
"""

import math
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import get_args

import numpy as np
from rich.table import Table

from detectors.base import Detector, Floats
from detectors.budget import share_budget
from detectors.calibration import BenignSample, Conditioning, Ties
from lab.data import LabError
from lab.split import Split
from lab.tabular import slim_table

__all__ = ["ALPHAS", "TOGETHER", "Rate", "budget_table", "measure_budget"]

ALPHAS = (0.01, 0.02, 0.05, 0.1)
TOGETHER = "all together"

Progress = Callable[[Iterable[int]], Iterable[int]]


@dataclass(frozen=True)
class Rate:
    """The false-positive rate of one cell over many splits.

    `fpr` is the mean, `error` its standard error: calibration and judged images of a random split are
    exchangeable, so its expectation is at most α. `worst` is the largest rate of one split.
    """

    detector: str
    conditioning: Conditioning
    ties: Ties
    alpha: float
    fpr: float
    error: float
    worst: float
    splits: int

    @property
    def kept(self) -> bool:
        """True where the mean is at most α within three standard errors: there are many cells."""
        return self.fpr <= self.alpha + 3 * self.error


def measure_budget(
    detectors: Sequence[Detector],
    pool: BenignSample,
    calibration: int,
    splits: int,
    seed: int = 0,
    together: Sequence[str] = ("profile", "psc", "spc"),
    progress: Progress = lambda numbers: numbers,
) -> list[Rate]:
    """The rates of every detector alone, and of those named in `together` as one budget, for every α,
    conditioning and kind of ties. `calibration` images of the pool calibrate, the others are judged."""
    if len(pool) <= calibration:
        raise LabError(f"{len(pool)} benign images are too few to calibrate on {calibration}")
    generator = np.random.default_rng(seed)
    union = [each for each in detectors if each.name in together]
    found: dict[tuple[str, Conditioning, Ties, float], list[float]] = {}
    for _ in progress(range(splits)):
        order = generator.permutation(len(pool))
        split = Split(detectors, pool.take(order[:calibration]))
        judged = split.judge(pool.take(order[calibration:]), generator)
        for by in get_args(Conditioning):
            for ties in get_args(Ties):
                for alpha in ALPHAS:
                    for each in detectors:
                        if calibration >= 1 / alpha - 1:
                            rate = judged.rejected(
                                [split.calibrate(each, split.sample, alpha, by, ties)]
                            ).mean()
                            found.setdefault((each.name, by, ties, alpha), []).append(float(rate))
                    if len(union) > 1 and calibration >= len(union) / alpha - 1:
                        parts = share_budget(union, split.sample, alpha, by, ties, 0.0, split.calibrate)
                        rate = judged.rejected(list(parts.values())).mean()
                        found.setdefault((TOGETHER, by, ties, alpha), []).append(float(rate))
    return [_rate(*key, np.array(rates)) for key, rates in found.items()]


def _rate(detector: str, by: Conditioning, ties: Ties, alpha: float, rates: Floats) -> Rate:
    error = float(rates.std()) / math.sqrt(len(rates))
    return Rate(detector, by, ties, alpha, float(rates.mean()), error, float(rates.max()), len(rates))


def budget_table(name: str, calibration: int, rates: Sequence[Rate]) -> Table:
    """One line per detector, conditioning and kind of ties; one column per α. Too much is marked with !"""
    title = f"{name}: mean false-positive rate, calibrated on {calibration} of the benign images"
    table = slim_table(title, "detector", "thresholds", "ties", *[f"α = {alpha:.0%}" for alpha in ALPHAS])
    lines: dict[tuple[str, Conditioning, Ties], dict[float, Rate]] = {}
    for each in rates:
        lines.setdefault((each.detector, each.conditioning, each.ties), {})[each.alpha] = each
    for (detector, by, ties), cells in lines.items():
        shown = [_cell(cells.get(alpha)) for alpha in ALPHAS]
        table.add_row(detector, f"per {by}" if by == "class" else by, ties, *shown)
    return table


def _cell(rate: Rate | None) -> str:
    if rate is None:
        return "too few images"
    return f"{rate.fpr:.2%}{'' if rate.kept else ' !'}"
