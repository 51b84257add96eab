"""What a start without benign images costs: a calibration learnt from traffic, some of it poisoned,
against one on vetted, labelled images."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from rich.table import Table

from detectors.base import Floats
from detectors.budget import share_budget
from detectors.calibration import BenignSample
from detectors.reservoir import Reservoir
from detectors.trimming import trimmed
from lab.data import LabError
from lab.guard import measure
from lab.judge import Study
from lab.tabular import slim_table

__all__ = ["POISONED_SHARES", "Row", "datafree", "datafree_table"]

POISONED_SHARES = (0.0, 0.01, 0.05)


@dataclass(frozen=True)
class Row:
    """One way to calibrate, at one budget; means over the splits, and the largest FPR of any.
    `left_out`: share of the sample that was trimmed."""

    calibration: str
    poisoned: float
    contamination: float
    alpha: float
    left_out: float
    tpr: float
    fpr: float
    worst_fpr: float


def datafree(
    study: Study, alphas: Sequence[float], contamination: float, splits: int, seed: int
) -> list[Row]:
    """Measure everything once; then calibrate and judge on `splits` random halves in numpy.

    Half of the images calibrate, or are the traffic learnt from; the other half are judged. No image is in
    both, triggered or not. Raises `LabError` where there are too few.
    """
    benign = measure(study, study.calibration.images, "benign images")
    labels = study.calibration.labels.numpy()
    poisoned = measure(study, study.poisoned, "triggered images")
    if len(poisoned) < POISONED_SHARES[-1] * len(benign):
        raise LabError(f"{len(poisoned)} triggered images are too few for {len(benign)} benign ones")
    found: dict[tuple[str, float, float, float], list[tuple[float, float, float]]] = {}
    for split in range(splits):
        random = np.random.default_rng((seed, split))
        order, dirty = random.permutation(len(benign)), random.permutation(len(poisoned))
        half, half_dirty = len(benign) // 2, len(poisoned) // 2
        judged = benign.take(order[half:]), poisoned.take(dirty[half_dirty:])
        vetted = benign.take(order[:half])
        vetted = BenignSample(vetted.predicted, labels[order[:half]], vetted.evidence)
        ways: list[tuple[str, float, float, BenignSample]] = [("labelled images", 0.0, 0.0, vetted)]
        for share in POISONED_SHARES:
            traffic = _traffic(benign.take(order[:half]), poisoned.take(dirty[:half_dirty]), share, random)
            ways += [
                ("traffic", share, assumed, trimmed(study.detectors, traffic, assumed))
                for assumed in dict.fromkeys((0.0, contamination))
            ]
        for name, share, assumed, sample in ways:
            for alpha in alphas:
                rates = _rates(study, sample, alpha, judged)
                found.setdefault((name, share, assumed, alpha), []).append((1 - len(sample) / half, *rates))
    return [_row(key, np.array(rows)) for key, rows in sorted(found.items(), key=lambda each: each[0][3])]


def _row(key: tuple[str, float, float, float], figures: Floats) -> Row:
    left_out, tpr, fpr = figures.mean(0).tolist()
    return Row(*key, left_out, tpr, fpr, float(figures[:, 2].max()))


def _traffic(
    benign: BenignSample, poisoned: BenignSample, share: float, random: np.random.Generator
) -> BenignSample:
    """What a reservoir holds after as many images as `benign` has, of which a `share` is poisoned."""
    dirty = round(share * len(benign))
    mixed = BenignSample.join(
        [benign.take(np.arange(len(benign) - dirty)), poisoned.take(np.arange(dirty))], None
    )
    reservoir = Reservoir(len(benign))
    reservoir.add(mixed.take(random.permutation(len(mixed))))
    return reservoir.sample()


def _rates(
    study: Study, sample: BenignSample, alpha: float, judged: tuple[BenignSample, BenignSample]
) -> tuple[float, float]:
    """TPR and FPR of all detectors together."""
    classes = study.classifier.num_classes
    parts = share_budget(study.detectors, sample, alpha)
    rates = []
    for images in judged:
        stopped = np.zeros(len(images), dtype=np.bool_)
        for detector in study.detectors:
            part = parts[detector.name]
            scores = detector.score(images.evidence[detector.name], images.predicted, part.fit)
            stopped |= ~(scores <= part.thresholds(classes)[images.predicted])
        rates.append(float(stopped.mean()))
    return rates[1], rates[0]


def datafree_table(study: Study, rows: Sequence[Row], splits: int) -> Table:
    """One line per way to calibrate and budget."""
    title = (
        f"{study.classifier.info.name}: {study.attack}, target {study.target}; "
        f"{len(study.calibration) // 2} images to calibrate on, {splits} splits"
    )
    headings = ("budget", "calibrated on", "poisoned", "assumed", "left out", "TPR", "FPR (worst split)")
    table = slim_table(title, *headings)
    for row in rows:
        table.add_row(
            f"{row.alpha:.0%}", row.calibration, f"{row.poisoned:.0%}", f"{row.contamination:.0%}",
            f"{row.left_out:.1%}", f"{row.tpr:.3f}", f"{row.fpr:.4f} ({row.worst_fpr:.4f})",
        )  # fmt: skip
    return table
