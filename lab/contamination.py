"""What triggered images among the calibration images cost, and what the defences against them restore.

A share of the calibration images carries the trigger, and their given label is their true one. Everything
is measured once (`lab.evidence`); splits draw from it. Judged are benign and triggered images that did not
calibrate, by all detectors together at one budget.
"""

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
from rich.table import Table

from detectors.base import CalibrationError, Detector
from detectors.budget import share_budget
from detectors.calibration import BenignSample
from detectors.contamination import screen
from lab.data import LabError
from lab.split import Split
from lab.tabular import slim_table

__all__ = ["SHARES", "Outcome", "contamination_table", "measure_contamination"]

SHARES = (0.0, 0.01, 0.05, 0.1)
Defence = Literal["none", "suspects left out", "trimmed", "both"]
DEFENCES: tuple[Defence, ...] = ("none", "suspects left out", "trimmed", "both")
TRIMMED = 0.02  # the `contamination` that the trimmed defences assume

Progress = Callable[[Iterable[int]], Iterable[int]]


@dataclass(frozen=True)
class Outcome:
    """Means over the splits. `strong` and `weak` are the shares of splits with such evidence of
    contamination, `found` the share of triggered calibration images among the suspects, `wrong` the number
    of benign ones. `refused` splits had too few images left for the budget."""

    share: float
    defence: Defence
    tpr: float
    fpr: float
    strong: float
    weak: float
    found: float
    wrong: float
    refused: int


def measure_contamination(
    detectors: Sequence[Detector],
    benign: BenignSample,
    triggered: BenignSample,
    calibration: int,
    splits: int,
    alpha: float,
    seed: int = 0,
    progress: Progress = lambda numbers: numbers,
) -> list[Outcome]:
    """TPR and FPR for every share of contamination and every defence, `calibration` images each time."""
    if len(benign) <= calibration or len(triggered) <= SHARES[-1] * calibration:
        raise LabError(
            f"{len(benign)} benign and {len(triggered)} triggered images are too few to calibrate on "
            f"{calibration}"
        )
    generator = np.random.default_rng(seed)
    rows: dict[tuple[float, Defence], list[tuple[float, ...]]] = {}
    for _ in progress(range(splits)):
        for share in SHARES:
            poisoned = round(share * calibration)
            first, second = generator.permutation(len(benign)), generator.permutation(len(triggered))
            clean, rest = np.split(first, [calibration - poisoned])
            planted, attack = np.split(second, [poisoned])
            sample = BenignSample.join(
                [benign.take(clean), triggered.take(planted)],
                np.concatenate([_labels(benign.take(clean)), _labels(triggered.take(planted))]),
            )
            judged = benign.take(rest), triggered.take(attack)
            for defence in DEFENCES:
                row = _defend(detectors, sample, poisoned, judged, defence, alpha, generator)
                rows.setdefault((share, defence), []).append(row)
    return [_outcome(share, defence, np.array(found)) for (share, defence), found in rows.items()]


def _labels(sample: BenignSample) -> np.ndarray:
    return sample.predicted if sample.labels is None else sample.labels


def _defend(
    detectors: Sequence[Detector],
    sample: BenignSample,
    poisoned: int,
    judged: tuple[BenignSample, BenignSample],
    defence: Defence,
    alpha: float,
    generator: np.random.Generator,
) -> tuple[float, ...]:
    """FPR, TPR, strong, weak, found, wrong of one split; the last `poisoned` images of `sample` are."""
    screening = screen(sample.evidence.get("profile"), sample.predicted, sample.labels)
    suspects = np.array(screening.suspects, dtype=np.int64)
    strength = screening.strength
    found = int((suspects >= len(sample) - poisoned).sum())
    facts = (strength == "strong", strength == "weak", found / max(1, poisoned), len(suspects) - found)
    if len(suspects) and defence in ("suspects left out", "both"):
        sample = sample.take(np.setdiff1d(np.arange(len(sample)), suspects))
    share = TRIMMED if defence in ("trimmed", "both") else 0.0
    split = Split(detectors, sample, share)
    try:
        parts = share_budget(detectors, sample, alpha, "class", "conservative", share, split.calibrate)
    except CalibrationError:
        return (np.nan, np.nan, *facts)
    rates = [split.judge(images, generator).rejected(list(parts.values())).mean() for images in judged]
    return (float(rates[0]), float(rates[1]), *facts)


def _outcome(share: float, defence: Defence, rows: np.ndarray) -> Outcome:
    made = ~np.isnan(rows[:, 0])
    fpr, tpr = rows[made, :2].mean(0).tolist() if made.any() else (0.0, 0.0)
    strong, weak, found, wrong = rows[:, 2:].mean(0).tolist()
    return Outcome(share, defence, tpr, fpr, strong, weak, found, wrong, int((~made).sum()))


def contamination_table(name: str, calibration: int, alpha: float, outcomes: Sequence[Outcome]) -> Table:
    """One line per share and defence."""
    title = (
        f"{name}: calibrated on {calibration} images, some with the trigger; budget {alpha:.0%}, all "
        f"detectors together; trimmed: contamination = {TRIMMED:g}"
    )
    headings = ("triggered", "defence", "TPR", "FPR", "strong / weak evidence", "found", "benign suspects")
    table = slim_table(title, *headings)
    for each in outcomes:
        table.add_row(
            f"{each.share:.0%}", each.defence, f"{each.tpr:.3f}", f"{each.fpr:.4f}",
            f"{each.strong:.0%} / {each.weak:.0%}", f"{each.found:.0%}", f"{each.wrong:.1f}",
        )  # fmt: skip
    return table
