"""One false-positive budget for several detectors, any of which rejects an image."""

from collections.abc import Mapping, Sequence

from detectors.base import CalibrationError, Detector
from detectors.calibration import (
    BenignSample,
    Conditioning,
    DetectorCalibration,
    calibrate,
    images_needed,
)
from detectors.report import blind_labels

__all__ = ["share_budget"]


def share_budget(
    detectors: Sequence[Detector], sample: BenignSample, alpha: float, by: Conditioning = "class"
) -> Mapping[str, DetectorCalibration]:
    """Calibrate `detectors` by name so that together they reject at most a share `alpha` of benign images.

    α is split evenly among those that can reject anything at all; one that is saturated on this model
    rejects nothing, and so spends nothing. Raises `CalibrationError`.
    """
    share = alpha / len(detectors)
    if len(sample) < images_needed(share):
        raise CalibrationError(
            f"{len(sample)} benign images are too few: a false-positive budget of {alpha:g}, split among "
            f"{len(detectors)} detectors, takes {images_needed(share)}; send more, or raise alpha"
        )
    parts = {each.name: calibrate(each, sample, share, by) for each in detectors}
    able = [d for d in detectors if len(blind_labels(d, parts[d.name])) < len(d.maxima(parts[d.name].fit))]
    for each in able if len(able) < len(detectors) else ():
        parts[each.name] = calibrate(each, sample, alpha / len(able), by)
    return parts
