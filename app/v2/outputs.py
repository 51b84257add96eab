"""Verdicts → output tensors, one row per image.

A rejected row has no answer. Where the caller asked for the others all the same (`partial`), its label is
-1 and its probabilities are all 0: they sum to 0, exceed no threshold, and say the same of every image.
"""

import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from app.firewall import Inspection
from app.images import ImageError
from app.isolation import Unjudged
from app.policy import Detection, Verdict
from app.v2.errors import BadRequest, RejectedRows
from models.base import ClassifierInfo
from models.open_inference import NamedTensor

__all__ = ["NO_LABEL", "answered", "offered", "output_metadata", "output_tensors"]

NO_LABEL = -1
UNREADABLE, UNJUDGED = "unreadable", "unjudged"
TYPES = {
    "label": "INT64",
    "probabilities": "FP32",
    "verdict": "BYTES",
    "score": "FP64",
    "p_value": "FP64",
}
Outcome = Inspection | Unjudged | ImageError


def offered(info: ClassifierInfo) -> tuple[str, ...]:
    """The outputs there are; a classifier that gives labels only has no probabilities."""
    return tuple(name for name in TYPES if name != "probabilities" or info.access != "labels")


def output_metadata(info: ClassifierInfo, detectors: Sequence[str]) -> list[dict[str, Any]]:
    """Name, datatype and shape of every output; -1 is the number of images."""
    width = {"probabilities": [info.num_classes], "score": [len(detectors)], "p_value": [len(detectors)]}
    return [
        {"name": name, "datatype": TYPES[name], "shape": [-1, *width.get(name, [])]} for name in offered(info)
    ]


def answered(outcomes: Sequence[Outcome], *, partial: bool) -> None:
    """Pass where every row has an answer, or where rows without one are welcome.

    Raises `RejectedRows`, or `BadRequest` for rows whose image cannot be read.
    """
    if partial:
        return
    unreadable = {row: each for row, each in enumerate(outcomes) if isinstance(each, ImageError)}
    if unreadable:
        row, error = next(iter(unreadable.items()))
        problem = BadRequest(
            f"{len(unreadable)} of {len(outcomes)} images cannot be read; the first is row {row}: {error}"
        )
        problem.extra = {"rows": [*unreadable]}
        raise problem
    rejected = [row for row, each in enumerate(outcomes) if not _has_answer(each)]
    if rejected:
        raise RejectedRows(rejected, len(outcomes))


def output_tensors(
    names: Sequence[str], outcomes: Sequence[Outcome], info: ClassifierInfo, detectors: Sequence[str]
) -> list[NamedTensor]:
    """The outputs `names` in that order. `score` and `p_value` have a column for each of `detectors`."""
    columns = {"detectors": ",".join(detectors)}
    parameters: Mapping[str, Mapping[str, Any]] = {"score": columns, "p_value": columns}
    return [
        NamedTensor(name, TYPES[name], _values(name, outcomes, info, detectors), parameters.get(name, {}))
        for name in names
    ]


def _values(
    name: str, outcomes: Sequence[Outcome], info: ClassifierInfo, detectors: Sequence[str]
) -> npt.NDArray[Any]:
    if name == "label":
        return np.array([_label(each) for each in outcomes], dtype=np.int64)
    if name == "probabilities":
        return np.stack([_probabilities(each, info.num_classes) for each in outcomes])
    if name == "verdict":
        return np.array([_verdict(each).encode() for each in outcomes], dtype=object)
    which = 0 if name == "score" else 1
    rows = [[_shown(each, detector)[which] for detector in detectors] for each in outcomes]
    return np.array(rows, dtype=np.float64).reshape(len(outcomes), len(detectors))


def _has_answer(outcome: Outcome) -> bool:
    return isinstance(outcome, Inspection) and outcome.verdict is not Verdict.REJECTED


def _label(outcome: Outcome) -> int:
    return outcome.label if isinstance(outcome, Inspection) and _has_answer(outcome) else NO_LABEL


def _probabilities(outcome: Outcome, classes: int) -> npt.NDArray[np.float32]:
    if isinstance(outcome, Inspection) and _has_answer(outcome) and outcome.probabilities is not None:
        return outcome.probabilities
    return np.zeros(classes, dtype=np.float32)


def _verdict(outcome: Outcome) -> str:
    if isinstance(outcome, Inspection):
        return outcome.verdict.value
    return UNJUDGED if isinstance(outcome, Unjudged) else UNREADABLE


def _shown(outcome: Outcome, detector: str) -> tuple[float, float]:
    """Score and p-value of one detector, NaN where there is none."""
    found: Sequence[Detection] = outcome.detections if isinstance(outcome, Inspection) else ()
    for each in found:
        if each.detector == detector:
            return each.score, math.nan if each.p_value is None else each.p_value
    return math.nan, math.nan
