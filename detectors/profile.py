"""The consistency profile: is the way this image answers small changes usual for its predicted class?

Every published detector asks one question in one direction. The profile asks several (`probes`), takes
the log-odds of the predicted label under each, and measures how far the vector lies from those of benign
images with the same prediction: the Mahalanobis distance with the class's mean and one covariance for all
classes, shrunk by Ledoit and Wolf (J. Multivariate Analysis 88, 2004, lemma 3.2 and section 3.3).

score(x) = (v − μ_ŷ)ᵀ Σ⁻¹ (v − μ_ŷ),  v_j = z_ŷ − log Σ_{c ≠ ŷ} exp z_c  with logits z of probe j

Needs probabilities, no weights. There is no paper to be exact to: it is this project's own.
"""

import math
from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor

from detectors.base import (
    Access,
    BasePass,
    CalibrationError,
    Classifier,
    Fit,
    Floats,
    InputError,
    Integers,
    Scores,
    Stages,
)
from detectors.behaviour import Cost
from detectors.probes import PROBES, Probe

__all__ = ["Profile", "ProfileScorer", "ledoit_wolf", "log_odds"]

LARGEST_LOG_ODDS = 30.0  # a probability within 1e-13 of 0 or 1: further out is rounding, not evidence
PRIOR_WEIGHT = 5.0  # the mean over all classes counts as this many images of every class


def log_odds(logits: Tensor, labels: Tensor) -> Tensor:
    """log p/(1 − p) of `labels` (B,) under `logits` (B, K): from the logits, so that confidences next to 1
    are still told apart. Returns (B,) within ±30."""
    chosen = labels[:, None]
    others = logits.scatter(1, chosen, -math.inf).logsumexp(1)
    return (logits.gather(1, chosen).squeeze(1) - others).clamp(-LARGEST_LOG_ODDS, LARGEST_LOG_ODDS)


def ledoit_wolf(centred: Floats) -> Floats:
    """Covariance (d, d) of rows (m, d) with mean zero, shrunk towards a multiple of the identity by the
    amount that minimises the expected squared error."""
    count, size = centred.shape
    sample = centred.T @ centred / count
    mean_variance = np.trace(sample) / size
    distance = float(((sample - mean_variance * np.eye(size)) ** 2).sum())
    squares = centred**2
    spread = float((squares.T @ squares / count - sample**2).sum() / count)
    shrinkage = 0.0 if distance == 0 else min(1.0, spread / distance)
    shrunk: Floats = (1 - shrinkage) * sample + shrinkage * mean_variance * np.eye(size)
    return shrunk


class Profile:
    """The consistency profile over `probes`; satisfies `detectors.base.Detector`.

    Evidence is (m, 1 + probes): the log-odds of the prediction for the image itself, then per probe.
    """

    name = "profile"
    needs = Access.PROBABILITIES

    def __init__(self, classifier: Classifier, probes: Sequence[Probe] = PROBES) -> None:
        """Raises `InputError` without probes."""
        if not probes:
            raise InputError("the profile needs at least one probe")
        self.classifier, self.probes = classifier, tuple(probes)

    def settings(self) -> dict[str, Any]:
        return {"probes": {probe.name: probe.strength for probe in self.probes}}

    def measure(self, images: Tensor) -> Tensor:
        return self.features(BasePass.of(images, self.classifier.logits(images)))

    def features(self, base: BasePass) -> Tensor:
        """(B, 1 + probes) float32. All probes of all images are one batch."""
        changed = torch.cat([probe.apply(base.images) for probe in self.probes])
        answers = log_odds(self.classifier.logits(changed), base.labels.repeat(len(self.probes)))
        own = log_odds(base.logits, base.labels)
        return torch.cat([own[:, None], answers.view(len(self.probes), -1).T], dim=1)

    def fit(self, evidence: Floats, predicted: Integers, labels: Integers | None) -> Fit:
        """Class means and the common covariance of benign profiles. Every class mean is shrunk towards
        the mean of all, so that a class with few images, or none, has one."""
        if len(evidence) < 2:
            raise CalibrationError("the profile needs at least two benign images")
        classes = self.classifier.num_classes
        counts = np.bincount(predicted, minlength=classes)[:, None]
        sums = np.zeros((classes, evidence.shape[1]))
        np.add.at(sums, predicted, evidence)
        means = (sums + PRIOR_WEIGHT * evidence.mean(0)) / (counts + PRIOR_WEIGHT)
        covariance = ledoit_wolf(evidence - means[predicted])
        # Identical images leave no spread at all; a small floor keeps the inverse finite.
        covariance += np.eye(len(covariance)) * (1e-6 * np.trace(covariance) / len(covariance) + 1e-9)
        return {"means": means.tolist(), "whitening": np.linalg.inv(np.linalg.cholesky(covariance)).tolist()}

    def score(self, evidence: Floats, predicted: Integers, fit: Fit) -> Floats:
        means, whitening = np.array(fit["means"]), np.array(fit["whitening"])
        distances: Floats = (((evidence - means[predicted]) @ whitening.T) ** 2).sum(1)
        return distances

    def plan(self, evidence: Floats, predicted: Integers, fit: Fit, thresholds: Floats) -> Stages:
        return [list(range(len(self.probes)))]

    def cost(
        self, evidence: Floats, predicted: Integers, fit: Fit, thresholds: Floats, stages: Stages
    ) -> Cost:
        """A distance is known only when all its parts are: there is no early exit."""
        passes = float(len(self.probes))
        return Cost(passes, passes)

    def scorer(self, fit: Fit, stages: Stages | None = None) -> "ProfileScorer":
        return ProfileScorer(self, np.array(fit["means"]), np.array(fit["whitening"]))

    def maxima(self, fit: Fit) -> Floats:
        """The distance has no largest value."""
        return np.full(self.classifier.num_classes, np.inf)

    def data_free_fit(self) -> Fit | None:
        return None  # what is usual is learnt from benign images

    def fixed_thresholds(self, fit: Fit) -> Floats:
        """The 99 % quantile of χ² with 1 + probes degrees of freedom (Wilson and Hilferty, 1931): what a
        Gaussian profile would exceed once in a hundred images. There is no paper's T to take."""
        freedom = 1 + len(self.probes)
        quantile = freedom * (1 - 2 / (9 * freedom) + 2.326 * math.sqrt(2 / (9 * freedom))) ** 3
        return np.full(self.classifier.num_classes, quantile)


class ProfileScorer:
    """A fitted `Profile`."""

    engine = "one batch of all probes"

    def __init__(self, detector: Profile, means: Floats, whitening: Floats) -> None:
        self.detector = detector
        self.means, self.whitening = torch.from_numpy(means), torch.from_numpy(whitening)
        self.stages: Stages = [list(range(len(detector.probes)))]

    def base(self, images: Tensor) -> BasePass | None:
        return None

    def score(self, base: BasePass, thresholds: Tensor | None = None) -> Scores:
        """A distance is known only when all its parts are: every score is exact."""
        features = self.detector.features(base).double()
        if self.means.device != features.device:  # once: a scorer serves one device
            self.means, self.whitening = self.means.to(features.device), self.whitening.to(features.device)
        distances = ((features - self.means[base.labels]) @ self.whitening.T).square().sum(1)
        return Scores(distances, torch.ones_like(base.labels, dtype=torch.bool))
