"""What each setting of the papers' detectors is worth: everything is measured once, and varied in numpy.

Only ω changes what has to be measured; n, ξ, T, the scale set and the calibration's size do not.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch
from rich.box import SIMPLE
from rich.console import Console
from rich.progress import track
from rich.table import Table
from torch import Tensor

from detectors.base import Detector, UnsupportedNetwork
from detectors.calibration import BenignSample, calibrate
from detectors.conformal import images_needed
from detectors.ibd_psc import PAPER_THRESHOLD, IbdPsc
from detectors.profile import Profile
from detectors.scale_up import PAPER_SCALES, ScaleUp
from detectors.scale_up import PAPER_THRESHOLD as SPC_THRESHOLD
from lab.data import LabError
from lab.judge import Study
from lab.metrics import auroc, target_auroc

__all__ = ["ALPHA", "Ablated", "ablate", "ablation_table"]

ALPHA = 0.05
DRAWS = 10  # of each calibration size
OMEGAS = (1.2, 1.35, 1.5, 1.75, 2.0)
COUNTS = (1, 2, 3, 5, 7, 9)
XIS = (0.2, 0.4, 0.6, 0.7, 0.8, 0.9)
THRESHOLDS = (0.5, 0.6, 0.7, 0.8, 0.9, 0.95, 0.99)
SCALE_SETS = ((3.0,), (3.0, 5.0), (3.0, 5.0, 7.0), PAPER_SCALES, tuple(map(float, range(2, 12))))
EVERY_SCALE = tuple(map(float, range(2, 13)))
SIZES = (20, 50, 100, 200, 500, 1000, 2000)


@dataclass(frozen=True)
class Ablated:
    """One `detector` with `parameter` at `value`; `usual`: the paper's. TPR and FPR are at the budget `ALPHA`
    and, `_fixed`, at T. Of all poisoned images; None where a setting has no such number."""

    parameter: str
    detector: str
    value: str
    usual: bool
    auroc: float | None = None
    target_auroc: float | None = None
    tpr: float | None = None
    fpr: float | None = None
    tpr_fixed: float | None = None
    fpr_fixed: float | None = None


@dataclass(frozen=True)
class Sets:
    """What one detector measured of the calibration, the benign and the poisoned images."""

    calibration: BenignSample
    benign: BenignSample
    poisoned: BenignSample
    target: int


def ablate(study: Study) -> list[Ablated]:
    """Every setting of PSC (on networks with BatchNorm) and SPC; calibration sizes of the profile too.

    Raises `LabError` without a backdoor, and where the calibration supports no budget of `ALPHA`.
    """
    if study.attack is None:
        raise LabError("an ablation needs a backdoor: this model was trained without an attack")
    if len(study.calibration) < images_needed(ALPHA):
        raise LabError(f"{len(study.calibration)} calibration images support no budget of {ALPHA:g}")
    profile = Profile(study.classifier)
    rows = [*_of_psc(study), *_of_spc(study)]
    return [*rows, *_sizes(profile, _measure(profile, study, "profile"))]


def _of_psc(study: Study) -> list[Ablated]:
    example = study.batches(study.benign[:2])[0]
    try:
        IbdPsc(study.classifier, example)
    except UnsupportedNetwork:
        return []
    rows: list[Ablated] = []
    for omega in OMEGAS:
        detector = IbdPsc(study.classifier, example, omega=omega)
        sets = _measure(detector, study, f"PSC, ω = {omega:g}")
        rows.append(_judged("ω", f"{omega:g}", omega == 1.5, detector, sets))
        if omega == 1.5:
            usual, usual_sets = detector, sets
    layers = len(usual.order)
    for count in [each for each in COUNTS if each <= layers]:
        varied = IbdPsc(study.classifier, example, n=count)
        rows.append(_judged("n", str(count), count == 5, varied, usual_sets))
    for xi in XIS:
        varied = IbdPsc(study.classifier, example, xi=xi)
        k = varied.fit(usual_sets.calibration.evidence["psc"], usual_sets.calibration.predicted,
                       usual_sets.calibration.labels)["k"]  # fmt: skip
        rows.append(_judged("ξ", f"{xi:g} (k = {k})", xi == 0.6, varied, usual_sets))
    return [*rows, *_thresholds(usual, usual_sets, PAPER_THRESHOLD), *_sizes(usual, usual_sets)]


def _of_spc(study: Study) -> list[Ablated]:
    every = ScaleUp(study.classifier, EVERY_SCALE)
    sets = _measure(every, study, "SPC, every scale")
    rows = []
    for scales in SCALE_SETS:
        chosen = [EVERY_SCALE.index(scale) for scale in scales]
        columns = [*chosen, *(len(EVERY_SCALE) + number for number in chosen)]
        detector, part = ScaleUp(study.classifier, scales), _columns(sets, columns)
        name = "{" + ", ".join(f"{scale:g}" for scale in scales) + "}"
        rows.append(_judged("scale set", name, scales == PAPER_SCALES, detector, part))
        if scales == PAPER_SCALES:
            usual, usual_sets = detector, part
    return [*rows, *_thresholds(usual, usual_sets, SPC_THRESHOLD), *_sizes(usual, usual_sets)]


def _columns(sets: Sets, columns: Sequence[int]) -> Sets:
    parts = [
        replace(part, evidence={name: each[:, columns] for name, each in part.evidence.items()})
        for part in (sets.calibration, sets.benign, sets.poisoned)
    ]
    return Sets(parts[0], parts[1], parts[2], sets.target)


@torch.inference_mode()
def _measure(detector: Detector, study: Study, title: str) -> Sets:
    def measured(images: Tensor) -> BenignSample:
        batches = track(study.batches(images), title, console=Console(stderr=True), transient=True)
        evidence = torch.cat([detector.measure(part).cpu() for part in batches]).double().numpy()
        return BenignSample(study.predictions(images), None, {detector.name: evidence})

    calibration = replace(measured(study.calibration.images), labels=study.calibration.labels.numpy())
    return Sets(calibration, measured(study.benign), measured(study.poisoned), study.target)


def _judged(parameter: str, value: str, usual: bool, detector: Detector, sets: Sets) -> Ablated:
    """With the whole calibration."""
    part = calibrate(detector, sets.calibration, ALPHA)
    classes = len(detector.fixed_thresholds(part.fit))
    benign, poisoned = (
        detector.score(each.evidence[detector.name], each.predicted, part.fit)
        for each in (sets.benign, sets.poisoned)
    )
    budget, fixed = part.thresholds(classes), detector.fixed_thresholds(part.fit)
    return Ablated(
        parameter, detector.name, value, usual,
        auroc(benign, poisoned),
        target_auroc(benign, sets.benign.predicted, poisoned, sets.target),
        float((poisoned > budget[sets.poisoned.predicted]).mean()),
        float((benign > budget[sets.benign.predicted]).mean()),
        float((poisoned > fixed[sets.poisoned.predicted]).mean()),
        float((benign > fixed[sets.benign.predicted]).mean()),
    )  # fmt: skip


def _thresholds(detector: Detector, sets: Sets, usual: float) -> list[Ablated]:
    """TPR and FPR at one T for all labels."""
    name = detector.name
    fit = detector.fit(sets.calibration.evidence[name], sets.calibration.predicted, sets.calibration.labels)
    benign, poisoned = (
        detector.score(each.evidence[name], each.predicted, fit) for each in (sets.benign, sets.poisoned)
    )
    return [
        Ablated("T", name, f"{limit:g}", limit == usual, tpr_fixed=float((poisoned > limit).mean()),
                fpr_fixed=float((benign > limit).mean()))
        for limit in THRESHOLDS
    ]  # fmt: skip


def _sizes(detector: Detector, sets: Sets) -> list[Ablated]:
    """Means over `DRAWS` calibrations of each size that the budget admits."""
    whole, rows = len(sets.calibration), []
    rng = np.random.default_rng(0)
    for size in [each for each in SIZES if images_needed(ALPHA) <= each <= whole]:
        draws = 1 if size == whole else DRAWS
        chosen = [rng.permutation(whole)[:size] for _ in range(draws)]
        found = [
            _judged("calibration size", str(size), size == 1000, detector,
                    replace(sets, calibration=sets.calibration.take(rows_)))
            for rows_ in chosen
        ]  # fmt: skip
        means: dict[str, Any] = {name: _mean([getattr(each, name) for each in found]) for name in MEASURES}
        rows.append(replace(found[0], **means))
    return rows


MEASURES = ("auroc", "target_auroc", "tpr", "fpr", "tpr_fixed", "fpr_fixed")


def _mean(values: Sequence[float | None]) -> float | None:
    known = [value for value in values if value is not None]
    return float(np.mean(known)) if known else None


def ablation_table(rows: Sequence[Ablated]) -> Table:
    """One line per setting, the papers' own marked."""
    table = Table(title="* the paper's setting, or the default; rates are TPR/FPR", box=SIMPLE, padding=0)
    headings = ("setting", "detector", "value", "AUROC", "in target", f"at {ALPHA:.0%}", "at T")
    for heading in headings:
        table.add_column(heading, no_wrap=heading != "value")
    for row in rows:
        areas = [_told(row.auroc), _told(row.target_auroc)]
        rates = [f"{_told(t)}/{_told(f)}" for t, f in ((row.tpr, row.fpr), (row.tpr_fixed, row.fpr_fixed))]
        table.add_row(row.parameter, row.detector, row.value + (" *" if row.usual else ""), *areas, *rates)
    return table


def _told(value: float | None) -> str:
    return "—" if value is None else f"{value:.3f}"
