"""One calibration sample and the images judged by it, in numpy: fits and scores once, thresholds often."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from detectors.base import Detector, Floats
from detectors.calibration import (
    BenignSample,
    Conditioning,
    DetectorCalibration,
    Ties,
    calibration_scores,
    robust_fit,
    with_thresholds,
)

__all__ = ["Judged", "Split"]


@dataclass(frozen=True)
class Judged:
    """Images with their scores (N,) by detector and their `draws` (N,) in [0, 1) for randomised ties."""

    sample: BenignSample
    scores: dict[str, Floats]
    draws: Floats

    def rejected(self, parts: Sequence[DetectorCalibration]) -> np.ndarray:
        """(N,) bool: which images at least one of `parts` finds suspicious."""
        found: np.ndarray = np.any([self._suspicious(part) for part in parts], axis=0)
        return found

    def _suspicious(self, part: DetectorCalibration) -> np.ndarray:
        predicted, scores = self.sample.predicted, self.scores[part.detector]
        classes = int(predicted.max()) + 1
        limits = part.thresholds(classes)[predicted]
        ties = part.tie_probabilities(classes)[predicted]
        suspicious: np.ndarray = (scores > limits) | ((scores == limits) & (self.draws < ties))
        return suspicious


class Split:
    """`detectors` fitted on `sample`, a share `contamination` of which may be poisoned."""

    def __init__(
        self, detectors: Sequence[Detector], sample: BenignSample, contamination: float = 0.0
    ) -> None:
        self.detectors, self.sample = detectors, sample
        self.fits = {
            each.name: robust_fit(
                each, sample.evidence[each.name], sample.predicted, sample.labels, contamination
            )
            for each in detectors
        }
        self.benign = {
            each.name: calibration_scores(each, sample, self.fits[each.name], contamination)
            for each in detectors
        }

    def calibrate(
        self,
        detector: Detector,
        sample: BenignSample,
        alpha: float,
        by: Conditioning,
        ties: Ties,
        contamination: float = 0.0,
    ) -> DetectorCalibration:
        """What `detectors.calibration.calibrate` gives, without fitting again or planning stages."""
        name = detector.name
        return with_thresholds(
            detector, self.fits[name], self.benign[name], sample, alpha, by, ties, contamination
        )

    def judge(self, images: BenignSample, generator: np.random.Generator) -> Judged:
        """Score measured `images`, benign or not."""
        scores = {
            each.name: each.score(images.evidence[each.name], images.predicted, self.fits[each.name])
            for each in self.detectors
        }
        return Judged(images, scores, generator.random(len(images)))
