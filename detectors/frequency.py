"""Frequency: does the image's spectrum look like that of a triggered one? (Zeng et al., ICCV 2021,
arXiv:2104.03413)

score(x) = w · φ(x) + b,  φ = mean log |DCT-II(x)| over a grid of at most 8×8 bands per channel

Triggers leave high-frequency traces that natural images do not have (section 3). A classifier is trained
to tell benign images from the same ones with made-up triggers, and never asks the network that is
guarded: it costs no forward pass, and smooth triggers (warps) are beyond it.

Departures: the paper trains a six-layer CNN on the full spectrum; here it is a ridge logistic regression
on pooled log-magnitudes, so that it is fitted in a moment at calibration, always the same, and is kept as
some hundred numbers of JSON. Nothing is used of the guarded model; the least access will do.
"""

from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from detectors.base import (
    Access,
    BasePass,
    CalibrationError,
    Classifier,
    Fit,
    Floats,
    Integers,
    Scores,
    Stages,
)
from detectors.jpeg import cosine_basis
from detectors.synthetic_triggers import KINDS, with_synthetic_trigger

__all__ = ["Frequency", "FrequencyScorer", "logistic_regression", "spectrum"]

BANDS = 8
FLOOR = 1e-3  # of a magnitude, pixels in [0, 1]: a quarter of a grey level
RIDGE = 30.0  # strength of the penalty on standardised weights
MOST_IMAGES = 2000  # that are learnt from; more would take longer and teach little
STEPS, TOLERANCE = 25, 1e-8


def spectrum(images: Tensor) -> Tensor:
    """(B, C, H, W) in [0, 1] → (B, C · bands) float32: the mean log-magnitude of the DCT by band."""
    height, width = images.shape[-2:]
    rows, columns = cosine_basis(height, images.device), cosine_basis(width, images.device)
    magnitudes = (rows @ images.float() @ columns.T).abs()
    bands = F.adaptive_avg_pool2d((magnitudes + FLOOR).log(), (min(BANDS, height), min(BANDS, width)))
    return bands.flatten(1)


def logistic_regression(rows: Floats, triggered: Floats) -> tuple[Floats, float]:
    """Weights (d,) and bias that tell `rows` (m, d) apart by `triggered` (m,) in {0, 1}: Newton's method
    on standardised columns with a ridge penalty, so that separable rows have an answer too."""
    means, deviations = rows.mean(0), rows.std(0) + 1e-6
    design = np.hstack([(rows - means) / deviations, np.ones((len(rows), 1))])
    penalty = np.append(np.full(rows.shape[1], RIDGE), 1e-6)
    weights = np.zeros(design.shape[1])
    for _ in range(STEPS):
        chance = 0.5 * (1 + np.tanh(design @ weights / 2))
        gradient = design.T @ (chance - triggered) + penalty * weights
        curvature = (design * (chance * (1 - chance))[:, None]).T @ design + np.diag(penalty)
        step = np.linalg.solve(curvature, gradient)
        weights = weights - step
        if np.abs(step).max() < TOLERANCE:
            break
    scaled = weights[:-1] / deviations
    return scaled, float(weights[-1] - means @ scaled)


class Frequency:
    """Satisfies `detectors.base.Detector`. Evidence is (m, 2 d): the spectrum of the image, and that of
    the same image with a made-up trigger, from which only `fit` learns."""

    name = "frequency"
    needs = Access.LABELS

    def __init__(self, classifier: Classifier) -> None:
        self.classifier = classifier

    def settings(self) -> dict[str, Any]:
        return {"bands": BANDS, "ridge": RIDGE, "triggers": [kind.__name__ for kind in KINDS]}

    def measure(self, images: Tensor) -> Tensor:
        return torch.cat([spectrum(images), spectrum(with_synthetic_trigger(images))], dim=1)

    def fit(self, evidence: Floats, predicted: Integers, labels: Integers | None) -> Fit:
        """Learn the difference on at most 2,000 of the images, evenly taken."""
        if len(evidence) == 0:
            raise CalibrationError("the frequency detector needs benign images")
        chosen = np.unique(np.linspace(0, len(evidence) - 1, MOST_IMAGES).astype(np.int64))
        benign, triggered = np.split(evidence[chosen], 2, axis=1)
        kinds = np.repeat([0.0, 1.0], len(chosen))
        weights, bias = logistic_regression(np.vstack([benign, triggered]), kinds)
        return {"weights": weights.tolist(), "bias": bias}

    def score(self, evidence: Floats, predicted: Integers, fit: Fit) -> Floats:
        weights = np.array(fit["weights"])
        scores: Floats = evidence[:, : len(weights)] @ weights + fit["bias"]
        return scores

    def plan(self, evidence: Floats, predicted: Integers, fit: Fit, thresholds: Floats) -> Stages:
        return []  # there is nothing to ask the network

    def scorer(self, fit: Fit, stages: Stages | None = None) -> "FrequencyScorer":
        return FrequencyScorer(np.array(fit["weights"]), fit["bias"])

    def maxima(self, fit: Fit) -> Floats:
        """Log-odds have no largest value."""
        return np.full(self.classifier.num_classes, np.inf)

    def data_free_fit(self) -> Fit | None:
        return None  # the spectrum of benign images is learnt from them

    def fixed_thresholds(self, fit: Fit) -> Floats:
        """Even odds: where the paper's classifier says "triggered" too."""
        return np.zeros(self.classifier.num_classes)


class FrequencyScorer:
    """A fitted `Frequency`; every score is exact."""

    engine = "cosine transform and one product, no forward pass"

    def __init__(self, weights: Floats, bias: float) -> None:
        self.weights, self.bias = torch.from_numpy(weights), bias
        self.stages: Stages = []

    def base(self, images: Tensor) -> BasePass | None:
        return None

    def score(self, base: BasePass, thresholds: Tensor | None = None) -> Scores:
        if self.weights.device != base.images.device:  # once: a scorer serves one device
            self.weights = self.weights.to(base.images.device)
        values = spectrum(base.images).double() @ self.weights + self.bias
        return Scores(values, torch.ones_like(base.labels, dtype=torch.bool))
