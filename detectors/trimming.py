"""Leaving out of a benign sample what is most likely not benign: a robust start from unvetted traffic.

An attacker who gets a share c of poisoned images into the sample raises the thresholds of his target
label above his own images. Two steps undo that, for a c that is assumed:

1. *Concentration steps*, as in the minimum covariance determinant (Rousseeuw and Van Driessen,
   Technometrics 41, 1999): fit on what is kept, leave out the ⌈c·m⌉ images least like it, repeat.
2. *Only what is too many.* Of a benign sample that leaves out a share of every label alike, and α would be
   exceeded by up to c. Poisoned images share one predicted label. So a label loses images only where it
   lost significantly more than the others, and about as many as that is too many; all else is put back.
"""

import math
from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from detectors.base import Detector, Floats, InputError, Integers
from detectors.binomial import binomial_tail
from detectors.calibration import BenignSample, p_values

__all__ = ["surplus", "trimmed"]

STEPS = 10
HALVINGS = 4
SIGNIFICANCE = 1e-3 / HALVINGS  # over all labels

Mask = npt.NDArray[np.bool_]


def trimmed(detectors: Sequence[Detector], sample: BenignSample, share: float) -> BenignSample:
    """`sample` without what is most likely poisoned, at most a `share` in [0, 0.5) of it.

    Exact for no attack in particular: a poisoned image that no detector finds unusual, or a trigger with
    many targets, stays in. Raises `InputError`, and `CalibrationError` where nothing can be fitted.
    """
    if not 0 <= share < 0.5:
        raise InputError(f"the share left out lies in [0, 0.5), not {share}")
    drop = math.ceil(share * len(sample) - 1e-9)
    if drop == 0:
        return sample
    telling = _telling(detectors, sample)
    kept = np.ones(len(sample), dtype=np.bool_)
    for _ in range(STEPS):
        oddity = _oddity(telling, sample, kept)
        following = np.ones(len(sample), dtype=np.bool_)
        following[np.argsort(oddity, kind="stable")[:drop]] = False
        if (following == kept).all():
            break
        kept = following
    return sample.take(~_too_many(sample.predicted, oddity, drop))


def _telling(detectors: Sequence[Detector], sample: BenignSample) -> Sequence[Detector]:
    """Those whose score has no maximum; all where there is none such. The benign images of a sink class may
    all be at the maximum of PSC or SPC, together with the poisoned ones: there it tells nothing."""
    unbounded = []
    for detector in detectors:
        fit = detector.fit(sample.evidence[detector.name], sample.predicted, None)
        if np.isinf(detector.maxima(fit)).all():
            unbounded.append(detector)
    return unbounded or detectors


def _oddity(detectors: Sequence[Detector], sample: BenignSample, kept: Mask) -> Floats:
    """(m,): the highest place, as a share, that any detector fitted on those `kept` gives an image among
    all. Of all labels: within its own label a poisoned image may be in the majority."""
    lowest = np.ones(len(sample))
    for detector in detectors:
        evidence = sample.evidence[detector.name]
        fit = detector.fit(evidence[kept], sample.predicted[kept], None)
        scores = detector.score(evidence, sample.predicted, fit)
        lowest = np.minimum(lowest, p_values(np.sort(scores), scores))
    return lowest


def _too_many(predicted: Integers, oddity: Floats, drop: int) -> Mask:
    """(m,): the surplus among the `drop` oddest images, the half of that, and so on: a small attack is
    plain among the very oddest and drowns in more."""
    order = np.argsort(oddity, kind="stable")
    sizes = [drop >> halvings for halvings in range(HALVINGS) if drop >> halvings > 0]
    left_out = np.zeros(len(predicted), dtype=np.bool_)
    for size in sizes:
        dropped = np.zeros(len(predicted), dtype=np.bool_)
        dropped[order[:size]] = True
        left_out |= surplus(predicted, dropped, oddity)
    return left_out


def surplus(predicted: Integers, dropped: Mask, oddity: Floats) -> Mask:
    """(m,): of the `dropped`, those that a label has too many of, the oddest first.

    A label has too many where a binomial with the other labels' rate makes so many unlikely.
    """
    labels = np.unique(predicted)
    left_out = np.zeros(len(predicted), dtype=np.bool_)
    for label in labels:
        mine = predicted == label
        count, own = int(mine.sum()), int((dropped & mine).sum())
        rate = float((dropped & ~mine).sum()) / max(1, len(predicted) - count)
        if own == 0 or binomial_tail(own, count, rate) * len(labels) > SIGNIFICANCE:
            continue
        usual = rate / (1 - rate) * (count - own)
        least = math.floor(usual - 2 * math.sqrt(usual))  # one poisoned image too few may cost all power
        candidates = np.flatnonzero(dropped & mine)
        oddest = candidates[np.argsort(oddity[candidates], kind="stable")]
        left_out[oddest[: own - max(0, least)]] = True
    return left_out
