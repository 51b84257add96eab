"""One false-positive budget for several detectors, any of which rejects.

The union of the detectors' rejections is at most the sum of their shares. The budget is split evenly among
the detectors that can reject anything at all; one that is saturated on this model rejects nothing, and so
spends nothing.
"""

from collections.abc import Callable, Mapping, Sequence

from detectors.base import CalibrationError, Detector
from detectors.calibration import BenignSample, Conditioning, DetectorCalibration, calibrate
from detectors.conformal import Ties, images_needed
from detectors.report import blind_labels

__all__ = ["Calibrate", "share_budget"]

Calibrate = Callable[[Detector, BenignSample, float, Conditioning, Ties, float], DetectorCalibration]
"""The arguments of `detectors.calibration.calibrate`, in its order."""


def share_budget(
    detectors: Sequence[Detector],
    sample: BenignSample,
    alpha: float,
    by: Conditioning = "class",
    ties: Ties = "conservative",
    contamination: float = 0.0,
    calibrate: Calibrate = calibrate,
) -> Mapping[str, DetectorCalibration]:
    """Calibrate `detectors` by name so that together they reject at most a share `alpha` of benign images.

    Ties of a detector that is saturated for every label stay conservative: randomised, they would spend
    its share on rejections by lot. Raises `CalibrationError`.
    """
    share = alpha / len(detectors)
    needed = images_needed(share, contamination)
    if len(sample) < needed:
        raise CalibrationError(
            f"{len(sample)} benign images are too few: a false-positive budget of {alpha:g}, split among "
            f"{len(detectors)} detectors, takes {needed}; send more, or raise alpha"
        )
    parts = {
        each.name: calibrate(each, sample, share, by, "conservative", contamination) for each in detectors
    }
    able = [each for each in detectors if not _saturated(each, parts[each.name])]
    if len(able) < len(detectors) or ties == "randomised":
        for detector in able:
            parts[detector.name] = calibrate(detector, sample, alpha / len(able), by, ties, contamination)
    return parts


def _saturated(detector: Detector, part: DetectorCalibration) -> bool:
    return len(blind_labels(detector, part)) == len(detector.maxima(part.fit))
