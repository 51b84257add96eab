"""STRIP: is the prediction sure even of blends with other images? (Gao et al., ACSAC 2019, arXiv:1902.06531)

H_n = −Σ_c p_c log p_c,  p = softmax F(blend of x and o_n)      (entropy over the K classes)
score(x) = (1/N) Σ_n (1 − H_n / log K)          (the paper's mean entropy, turned round and into [0, 1])

A trigger survives being blended with another image and forces its label all the same; what a benign
image shows does not. So low entropy is suspicious. The entropy is over classes, of each blend; over
blends it would measure something else. o_n are benign images of the calibration; the paper takes up to
N = 100 of them. `convex` blends are half of either image, where nothing is clipped; `superimposed` ones
add the overlay to the image and clip, which leaves a trigger its full contrast.

Needs probabilities. Costs N forward passes; as a mean of terms in [0, 1] it stops once it is certain.
"""

import math
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any, Literal

import numpy as np
import torch
from torch import Tensor

from detectors.base import (
    Access,
    BasePass,
    CalibrationError,
    Classifier,
    Detector,
    Fit,
    Floats,
    InputError,
    Integers,
    Scores,
    Stages,
)
from detectors.copies import logits_of_copies
from detectors.early_exit import bounded_mean, mean_of
from detectors.normal import normal_fit, normal_thresholds
from detectors.references import MOST_REFERENCES, REFERENCES, enlarged, unpack
from detectors.stages import cheapest_stages

__all__ = ["OVERLAYS", "Blend", "Strip", "StripScorer", "certainty", "convex", "superimposed"]

OVERLAYS = 16
Blend = Literal["convex", "superimposed"]


def convex(images: Tensor, overlay: Tensor) -> Tensor:
    """½ · images (B, C, H, W) + ½ · overlay (C, H, W), in pixel space."""
    return 0.5 * images + 0.5 * overlay


def superimposed(images: Tensor, overlay: Tensor) -> Tensor:
    """clip(images + overlay, 0, 1), in pixel space."""
    return (images + overlay).clamp(0, 1)


BLENDS: dict[Blend, Callable[..., Tensor]] = {"convex": convex, "superimposed": superimposed}


def certainty(logits: Tensor) -> Tensor:
    """1 − H / log K over the last axis: 0 where all classes are as likely, 1 where one is sure.

    An answer that is not a number counts as 1, the suspicious side: it must clear nobody.
    """
    log_p = logits.log_softmax(-1)
    entropy = -(log_p.exp() * log_p).nan_to_num(nan=0.0).sum(-1)
    shares = 1 - entropy / math.log(max(2, logits.shape[-1]))
    return torch.where(logits.isnan().any(-1), 1.0, shares.clamp(0, 1))


class Strip:
    """Satisfies `detectors.base.Detector` and `detectors.references.Comparing`."""

    name = "strip"
    needs = Access.PROBABILITIES

    def __init__(
        self,
        classifier: Classifier,
        overlays: int = OVERLAYS,
        blend: Blend = "convex",
        kept: Fit | None = None,
    ) -> None:
        """`overlays` is N, in 1..100; `kept` are the overlays themselves. Raises `InputError`."""
        if not 1 <= overlays <= MOST_REFERENCES:
            raise InputError(f"STRIP takes 1 to {MOST_REFERENCES} overlays, not {overlays}")
        self.classifier, self.references, self.blend, self.kept = classifier, overlays, blend, kept

    def settings(self) -> dict[str, Any]:
        return {"overlays": self.references, "blend": self.blend}

    def comparing_with(self, kept: Fit) -> Detector:
        return Strip(self.classifier, self.references, self.blend, kept)

    def measure(self, images: Tensor) -> Tensor:
        """Evidence (B, N): the certainty of each blend. Raises `CalibrationError` without overlays."""
        if self.kept is None:
            raise CalibrationError("STRIP blends with benign images: set some aside and give it these first")
        return self.certainties(images, enlarged(unpack(self.kept[REFERENCES]), images))

    def certainties(self, images: Tensor, overlays: Tensor) -> Tensor:
        """(B, len(overlays)): the certainty of every blend, in large batches."""
        changes = [partial(BLENDS[self.blend], overlay=overlay) for overlay in overlays]
        return certainty(logits_of_copies(self.classifier, images, changes)).T

    def fit(self, evidence: Floats, predicted: Integers, labels: Integers | None) -> Fit:
        """The overlays, and the mean and deviation of benign scores for the paper's own threshold."""
        if len(evidence) == 0:
            raise CalibrationError("STRIP needs benign images")
        scores = self.score(evidence, predicted, {})
        return {**(self.kept or {}), **normal_fit(scores)}

    def score(self, evidence: Floats, predicted: Integers, fit: Fit) -> Floats:
        scores: Floats = mean_of(torch.from_numpy(evidence)).numpy()
        return scores

    def plan(self, evidence: Floats, predicted: Integers, fit: Fit, thresholds: Floats) -> Stages:
        return cheapest_stages(evidence, thresholds, np.ones(evidence.shape[1]))

    def scorer(self, fit: Fit, stages: Stages | None = None) -> "StripScorer":
        """Raises `CalibrationError` where the fit has no overlays."""
        if REFERENCES not in fit:
            raise CalibrationError("this calibration has no overlays for STRIP: calibrate again")
        overlays = unpack(fit[REFERENCES])
        return StripScorer(self, overlays, stages or [range(len(overlays))])

    def maxima(self, fit: Fit) -> Floats:
        return np.ones(self.classifier.num_classes)

    def data_free_fit(self) -> Fit | None:
        return None  # overlays are benign images

    def fixed_thresholds(self, fit: Fit) -> Floats:
        """What 1 % of benign images would exceed, were their scores normal (section V-D of the paper)."""
        return normal_thresholds(fit, self.classifier.num_classes)


class StripScorer:
    """A fitted `Strip`: all blends of a stage go through the classifier together."""

    engine = "large batches of blends"

    def __init__(self, detector: Strip, overlays: Tensor, stages: Stages) -> None:
        self.detector, self.overlays, self.stages = detector, overlays, stages

    def base(self, images: Tensor) -> BasePass | None:
        return None

    def score(self, base: BasePass, thresholds: Tensor | None = None) -> Scores:
        self.overlays = enlarged(self.overlays, base.images)  # once: a scorer serves one device and size
        terms = base.terms(self.detector.name, len(self.overlays))

        def evaluate(which: Sequence[int], rows: Tensor | None) -> Tensor:
            images = base.images if rows is None else base.images[rows]
            return self.detector.certainties(images, self.overlays[list(which)])

        return bounded_mean(terms, self.stages, evaluate, thresholds)
