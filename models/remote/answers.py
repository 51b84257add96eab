"""What a remote classifier said of a batch → logits, or the reason why it cannot be believed.

Nothing is guessed or mended: an answer that is wrong in one row is wrong, since it would become a verdict.
"""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from models.contract import SMALLEST
from models.errors import BadUpstreamAnswer
from models.remote.spec import RemoteSpec

__all__ = ["logits_of_labels", "logits_of_scores", "rows_of"]

ROUNDING = 1e-2  # of a sum of probabilities that somebody rounded for their JSON

Values = npt.NDArray[Any]


def wrong(what: str) -> BadUpstreamAnswer:
    return BadUpstreamAnswer(f"the classifier behind this gateway answered nonsense: {what}")


def logits_of_labels(labels: Sequence[Any] | Values, rows: int, spec: RemoteSpec) -> Tensor:
    """Labels (B,) or (B, 1), as indices or as names → (B, K): 0 at the label, -inf elsewhere."""
    indices = [_index(label, spec) for label in _column(labels, rows)]
    if not all(0 <= index < spec.classes for index in indices):
        raise wrong(f"a label outside 0 to {spec.classes - 1}")
    logits = torch.full((rows, spec.classes), -torch.inf)
    logits[torch.arange(rows), torch.tensor(indices)] = 0.0
    return logits


def _column(labels: Sequence[Any] | Values, rows: int) -> list[Any]:
    column = np.asarray(labels, dtype=object)
    if column.shape not in ((rows,), (rows, 1)):
        raise wrong(f"labels of shape {list(column.shape)} for {rows} images")
    found: list[Any] = column.ravel().tolist()
    return found


def _index(label: Any, spec: RemoteSpec) -> int:
    if isinstance(label, bytes):
        label = label.decode(errors="replace")
    if isinstance(label, str) and spec.labels is not None and label in spec.labels:
        return spec.labels.index(label)
    if isinstance(label, bool) or not isinstance(label, int | np.integer):
        raise wrong("something that is no label")
    return int(label)


def logits_of_scores(scores: Values, rows: int, spec: RemoteSpec) -> Tensor:
    """Probabilities or logits (B, K), as the bundle's `output` says → logits (B, K), finite."""
    if scores.dtype.kind != "f" or scores.shape != (rows, spec.classes):
        kind = scores.dtype.name if scores.dtype.kind != "O" else "bytes"
        raise wrong(f"{kind} of shape {list(scores.shape)} for {rows} images and {spec.classes} classes")
    values = torch.from_numpy(scores.astype(np.float32))
    if not values.isfinite().all():
        raise wrong("scores that are not finite numbers")
    if spec.output == "logits":
        return values
    sums = values.sum(1)
    if (
        bool((values < 0).any())
        or bool((values > 1 + ROUNDING).any())
        or bool(((sums - 1).abs() > ROUNDING).any())
    ):
        raise wrong("probabilities that do not lie in [0, 1] or do not sum to 1")
    return values.clamp_min(SMALLEST).log()


def rows_of(entries: Sequence[Any], spec: RemoteSpec) -> Values:
    """Scores (B, K) from JSON: each entry a list of numbers, or an object of numbers by class name."""
    rows = [_by_name(entry, spec) if isinstance(entry, Mapping) else entry for entry in entries]
    try:
        found = np.asarray(rows)
    except ValueError:
        raise wrong("rows of different lengths") from None
    return found.astype(np.float64) if found.dtype.kind in "iu" else found


def _by_name(entry: Mapping[str, Any], spec: RemoteSpec) -> list[Any]:
    names = spec.labels or tuple(map(str, range(spec.classes)))
    if set(entry) != set(names):
        raise wrong("names that are not those of the classes")
    return [entry[name] for name in names]
