"""Does the power probe predict? Its word on a model, against what the model's own backdoor shows."""

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
from rich.table import Table
from torch import nn

from detectors.base import Detector
from detectors.power_probe import probe_power
from detectors.power_report import Probed
from detectors.triggers import TRIGGERS
from lab.data import LabError
from lab.judge import DETECTORS, Study
from lab.scoring import judge
from lab.tabular import slim_table
from models.torch_module import TorchClassifier

__all__ = ["Point", "compare", "correlations", "power_table", "scatter", "to_json"]

FAMILIES = {"badnets": "patch", "blend": "blend", "wanet": "warp"}
"""The kind of trigger that an attack's own is of; the others resemble none."""
ALPHA = 0.01  # of `lab.judge`'s budgets the operator's default


@dataclass(frozen=True)
class Point:
    """One detector on one backdoored model. `predicted` by all probes whose backdoor held, which is what an
    operator is told, and `informed` by those with the attack's own kind of trigger and its own target, which
    no operator knows; None without such probes. `real`: against the model's own backdoor."""

    model: str
    attack: str
    detector: str
    measure: str  # "tpr" at 1 % or "auroc"
    predicted: float | None
    informed: float | None
    real: float


def compare(study: Study, names: Sequence[str], seconds: float, targets: Sequence[int]) -> list[Point]:
    """Probe the study's model with its calibration images and the detectors `names`, aiming at `targets` (the
    attack's own first), and judge it by its own backdoor; two points a detector."""
    classifier = study.classifier
    images = study.calibration.images.to(classifier.device).float() / 255

    def guard(network: nn.Module) -> Sequence[Detector]:
        copy = TorchClassifier(network, classifier.info, classifier.device)
        return [DETECTORS[name](copy, images[:2]) for name in names]

    assert study.attack is not None  # `open_study` refuses benign models
    family = FAMILIES.get(study.attack)
    kinds = sorted(TRIGGERS, key=lambda kind: kind != family)  # its own kind and target first
    report = probe_power(
        classifier.network, images, study.calibration.labels, guard,
        alpha=ALPHA, kinds=kinds, targets=list(dict.fromkeys(targets)), seconds=seconds,
    )  # fmt: skip
    points = []
    for detector in study.detectors:
        figures = judge(detector, study)
        assert figures.auroc is not None
        reals = {"tpr": figures.tpr[str(ALPHA)], "auroc": figures.auroc}
        for measure, real in reals.items():
            informed = [p for p in report.judged if p.trigger == family and p.target == study.target]
            points.append(
                Point(
                    classifier.info.name,
                    study.attack,
                    detector.name,
                    measure,
                    _mean(report.judged, detector.name, measure),
                    _mean(informed, detector.name, measure),
                    real,
                )
            )
    return points


def _mean(probes: Sequence[Probed], detector: str, measure: str) -> float | None:
    values = [getattr(probe.detectors[detector], measure) for probe in probes]
    return float(np.mean(values)) if values else None


def correlations(points: Sequence[Point], measure: str, which: str) -> dict[str, float | int | None]:
    """Pearson's and Spearman's correlation and the mean absolute error of prediction `which` ("predicted" or
    "informed") of `measure`; None where there are fewer than three points, or they have no spread."""
    chosen = [p for p in points if p.measure == measure and getattr(p, which) is not None]
    predicted = np.array([getattr(p, which) for p in chosen], dtype=np.float64)
    real = np.array([p.real for p in chosen], dtype=np.float64)
    spread = len(chosen) >= 3 and np.ptp(predicted) > 0 and np.ptp(real) > 0
    return {
        "points": len(chosen),
        "pearson": float(np.corrcoef(predicted, real)[0, 1]) if spread else None,
        "spearman": float(np.corrcoef(ranks(predicted), ranks(real))[0, 1]) if spread else None,
        "mean_error": float(np.abs(predicted - real).mean()) if chosen else None,
    }


def ranks(values: np.ndarray) -> np.ndarray:
    """(m,) ranks from 1; equal values share the mean of theirs."""
    _, inverse, counts = np.unique(values, return_inverse=True, return_counts=True)
    last = np.cumsum(counts)
    return ((2 * last - counts + 1) / 2)[inverse]


def to_json(points: Sequence[Point]) -> dict[str, Any]:
    """The points, and how well each prediction agrees with the truth."""
    agreement = {
        measure: {which: correlations(points, measure, which) for which in ("predicted", "informed")}
        for measure in ("tpr", "auroc")
    }
    return {"alpha": ALPHA, "points": [asdict(point) for point in points], "agreement": agreement}


def power_table(points: Sequence[Point]) -> Table:
    """One line per model and detector."""
    table = slim_table("", "model", "attack", "detector", "measure", "predicted", "informed", "real")
    for p in points:
        shown = ["—" if value is None else f"{value:.3f}" for value in (p.predicted, p.informed, p.real)]
        name = f"TPR at {ALPHA:.0%}" if p.measure == "tpr" else "AUROC"
        table.add_row(p.model, p.attack, p.detector, name, *shown)
    return table


def scatter(points: Sequence[Point], path: Path) -> None:
    """Predicted against real, a panel per measure and prediction, as PNG or SVG by `path`'s suffix.

    Raises `LabError` without matplotlib.
    """
    try:
        from matplotlib.figure import Figure
    except ImportError as error:
        raise LabError("matplotlib is not installed: pip install '.[demo]'") from error
    figure = Figure(figsize=(9, 9), layout="constrained")
    panels = figure.subplots(2, 2)
    for row, measure in zip(panels, ("tpr", "auroc"), strict=True):
        for axes, which in zip(row, ("predicted", "informed"), strict=True):
            _panel(axes, points, measure, which)
    figure.savefig(path, dpi=120)


def _panel(axes: Any, points: Sequence[Point], measure: str, which: str) -> None:
    for detector in sorted({point.detector for point in points}):
        mine = [p for p in points if p.detector == detector and p.measure == measure]
        pairs = [(getattr(p, which), p.real) for p in mine if getattr(p, which) is not None]
        if pairs:
            axes.scatter(*zip(*pairs, strict=True), label=detector, alpha=0.7)
    found = correlations(points, measure, which)
    texts = [f"{name} {found[name]:.2f}" for name in ("pearson", "spearman") if found[name] is not None]
    axes.plot([0, 1], [0, 1], color="grey", linewidth=0.5)
    axes.set(xlim=(-0.05, 1.05), ylim=(-0.05, 1.05), xlabel=f"{which} {measure}", ylabel=f"real {measure}")
    axes.set_title(", ".join(texts) or "no correlation can be told", fontsize=9)
    if axes.get_legend_handles_labels()[0]:
        axes.legend(fontsize=8)
