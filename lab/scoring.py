"""Calibrate detectors on a study's calibration images, and score its other images, all and early.

Every image is scored exactly, on logits that all detectors share. Early exit is timed, counted and compared
on the first `Study.compared` images of each kind: by default few, so that judging costs little more than the
scores themselves.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from time import perf_counter

import numpy as np
import torch
from torch import Tensor

from detectors.base import BasePass, Detector, Scorer
from detectors.behaviour import Costed
from detectors.calibration import BenignSample, DetectorCalibration, calibrate
from detectors.references import keep_references, references_wanted, with_references
from lab.figures import BUDGETS, LAST, Figures, Kind, Scored, figures_of
from lab.judge import Study
from lab.metrics import Floats

__all__ = ["Calibrated", "calibrated", "judge", "score_images", "scored_by"]


@dataclass(frozen=True)
class Calibrated:
    """`detector` as it was calibrated at the last of `BUDGETS`; `limits` as in `Scored`."""

    detector: Detector
    part: DetectorCalibration
    scorer: Scorer
    limits: Mapping[str, Floats]


@dataclass(frozen=True)
class Early:
    """What early exit at the last budget did to `images` images; the fields are those of `Kind`."""

    terms: float
    counts: bool  # does the detector work in terms at all?
    seconds: float
    unequal: int
    images: int


def judge(detector: Detector, study: Study) -> Figures:
    """Calibrate `detector` on the calibration images, and score and judge the others."""
    return figures_of(score_images(detector, study))


def score_images(detector: Detector, study: Study) -> Scored:
    """Calibrate `detector`, and score the benign and the poisoned images."""
    return scored_by(calibrated(detector, study), study)


@torch.inference_mode()
def calibrated(detector: Detector, study: Study) -> Calibrated:
    """The first calibration images are set aside where the detector compares images with benign ones."""
    aside = references_wanted([detector])
    if aside:
        first = study.batches(study.calibration.images[:aside])[0]
        detector = with_references(detector, keep_references([detector], first))
    evidence = study.once(_identity(detector), lambda: _evidence(detector, study, study.calibration.images))
    predicted = study.predictions(study.calibration.images)
    labels = study.calibration.labels.numpy()
    sample = BenignSample(predicted[aside:], labels[aside:], {detector.name: evidence[aside:]})
    parts = {alpha: calibrate(detector, sample, alpha) for alpha in BUDGETS}
    last = parts[BUDGETS[-1]]
    limits = {str(alpha): part.thresholds(study.classifier.num_classes) for alpha, part in parts.items()}
    limits["fixed"] = detector.fixed_thresholds(last.fit)
    return Calibrated(detector, last, detector.scorer(last.fit, last.stages), limits)


@torch.inference_mode()
def scored_by(ready: Calibrated, study: Study) -> Scored:
    """The study's benign and poisoned images, as `ready` scores them."""
    backdoored = study.attack is not None
    return Scored(
        ready.detector.name,
        study.target if backdoored else None,
        ready.limits,
        _kind(ready, study, study.benign),
        _kind(ready, study, study.poisoned) if backdoored else None,
    )


def _identity(detector: Detector) -> tuple[str, str]:
    """Detectors with this in common measure the same: SPC and NSPC do."""
    return type(detector).__name__, repr(detector.settings())


def _evidence(detector: Detector, study: Study, images: Tensor) -> Floats:
    return torch.cat([detector.measure(b).cpu() for b in study.batches(images)]).double().numpy()


def _kind(ready: Calibrated, study: Study, images: Tensor) -> Kind:
    """Exact scores of `images` (N ≥ 1), and what early exit does to the first of them."""
    scores, labels = [], []
    for batch, logits in zip(study.batches(images), study.logits(images), strict=True):
        base = ready.scorer.base(batch) or BasePass.of(batch, logits)
        scores.append(ready.scorer.score(base).values.cpu())
        labels.append(base.labels.cpu())
    exact, predicted = torch.cat(scores), torch.cat(labels).numpy()
    first = slice(study.compared)
    early = _early(ready, study, images[first], exact[first])
    return Kind(
        exact.numpy(),
        predicted,
        early.terms,
        _passes(ready, study, images[first], predicted[first], early),
        early.seconds,
        early.unequal,
        early.images,
    )


def _early(ready: Calibrated, study: Study, images: Tensor, exact: Tensor) -> Early:
    """Score `images` again, stopping at the last budget's limits; compare with their `exact` scores."""
    limits = torch.from_numpy(ready.limits[LAST]).to(study.classifier.device)
    evaluated, seconds, unequal, start = 0, 0.0, 0, 0
    for batch in study.batches(images):
        started = perf_counter()
        base = ready.scorer.base(batch) or BasePass.of(batch, study.classifier.logits(batch))
        limit = limits[base.labels]
        early = ready.scorer.score(base, limit).values.cpu()  # waits for the device
        seconds += perf_counter() - started
        wanted = exact[start : start + len(batch)]
        unequal += int(((wanted > limit.cpu()) != (early > limit.cpu())).sum())
        evaluated += int(base.evaluated().sum())
        start += len(batch)
    counts = evaluated > 0 or not ready.scorer.stages  # else it has stages, yet does not work in terms
    return Early(evaluated / len(images), counts, seconds / len(images), unequal, len(images))


def _passes(
    ready: Calibrated, study: Study, images: Tensor, predicted: np.ndarray, early: Early
) -> float | None:
    """A term may cost more or less than a forward pass: where the detector knows, a few images tell."""
    if not isinstance(ready.detector, Costed):
        return early.terms if early.counts else None
    evidence = _evidence(ready.detector, study, images)
    limits = ready.limits[LAST][predicted]
    return ready.detector.cost(evidence, predicted, ready.part.fit, limits, ready.part.stages).expected
