"""The default detectors of the gateway, calibrated together and judging images as it does."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from rich.progress import track
from torch import Tensor

from detectors.base import BasePass, Floats, Scorer
from detectors.calibration import BenignSample, DetectorCalibration
from lab.judge import Study

__all__ = ["DETECTORS", "Looked", "Outcome", "judge_images", "limits", "measure"]

DETECTORS = ("profile", "psc", "spc")


@dataclass(frozen=True, slots=True)
class Looked:
    """What one detector said of one image; satisfies `detectors.drift.Look`."""

    detector: str
    score: float
    suspicious: bool
    exact: bool


Outcome = tuple[int, tuple[Looked, ...]]
"""The predicted label, and what every detector said."""


@torch.inference_mode()
def measure(study: Study, images: Tensor, what: str) -> BenignSample:
    """The evidence of all detectors on `images` (N, C, H, W) uint8."""
    parts = []
    for batch in track(study.batches(images), f"measuring {what}", transient=True):
        predicted = study.classifier.logits(batch).argmax(1).cpu().numpy()
        evidence = {d.name: d.measure(batch).double().cpu().numpy() for d in study.detectors}
        parts.append(BenignSample(predicted, None, evidence))
    return BenignSample.join(parts, None)


def limits(parts: Mapping[str, DetectorCalibration], classes: int) -> dict[str, Floats]:
    """Thresholds (classes,) by detector."""
    return {name: part.thresholds(classes) for name, part in parts.items()}


@torch.inference_mode()
def judge_images(
    study: Study, parts: Mapping[str, DetectorCalibration], images: Tensor, what: str
) -> list[Outcome]:
    """Judge `images` (N, C, H, W) uint8 as the gateway does: each detector stops once it is certain."""
    classes = study.classifier.num_classes
    values = limits(parts, classes)
    thresholds = {name: torch.from_numpy(each).to(study.classifier.device) for name, each in values.items()}
    scorers = {d.name: d.scorer(parts[d.name].fit, parts[d.name].stages) for d in study.detectors}
    outcomes: list[Outcome] = []
    for batch in track(study.batches(images), f"judging {what}", transient=True):
        base = _base(list(scorers.values()), study, batch)
        found = {}
        for name, scorer in scorers.items():
            limit = thresholds[name][base.labels]
            scores = scorer.score(base, limit)
            columns = scores.values, ~(scores.values <= limit), scores.exact
            found[name] = list(zip(*(column.cpu().tolist() for column in columns), strict=True))
        for row, label in enumerate(base.labels.cpu().tolist()):
            outcomes.append((label, tuple(Looked(name, *rows[row]) for name, rows in found.items())))
    return outcomes


def _base(scorers: Sequence[Scorer], study: Study, images: Tensor) -> BasePass:
    bases = (scorer.base(images) for scorer in scorers)
    return next((base for base in bases if base is not None), None) or BasePass.of(
        images, study.classifier.logits(images)
    )


def rejected(outcomes: Sequence[Outcome]) -> float:
    """The share of images that any detector found suspicious."""
    return float(np.mean([any(look.suspicious for look in looks) for _, looks in outcomes]))
