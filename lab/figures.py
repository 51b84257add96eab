"""What the scores of one detector on one model amount to: rates, areas, intervals and costs."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from lab.metrics import (
    Floats,
    Integers,
    Interval,
    auroc,
    auroc_interval,
    f1,
    target_auroc,
    target_auroc_interval,
)

__all__ = ["BUDGETS", "LAST", "Figures", "Kind", "Scored", "figures_of", "write_scores"]

BUDGETS = (0.01, 0.05)
LAST = str(BUDGETS[-1])


@dataclass(frozen=True)
class Kind:
    """The benign or the poisoned images (N ≥ 0) under one detector: exact scores (N,), the labels (N,) that
    the network gives them, and what early exit at the 5 % budget evaluates (terms per image), costs (forward
    passes per image beyond the plain one; None where neither terms nor detector tell), takes (seconds per
    image, with the plain pass) and decides otherwise than the exact score (`unequal` images of `compared`,
    by default all)."""

    scores: Floats
    predicted: Integers
    terms: float
    passes: float | None
    seconds: float
    unequal: int
    compared: int | None = None

    def rejected(self, limits: Floats) -> np.ndarray:
        """(N,) bool, with `limits` (K,) by predicted label."""
        return self.scores > limits[self.predicted]


@dataclass(frozen=True)
class Scored:
    """One detector on one model. `target` is the attacker's label; it and `poisoned` are None of a model
    without a backdoor. `limits` (K,) by threshold: budgets as text ("0.01") and "fixed", the paper's T."""

    detector: str
    target: int | None
    limits: Mapping[str, Floats]
    benign: Kind
    poisoned: Kind | None


@dataclass(frozen=True)
class Figures:
    """`tpr`, `fpr` and `f1` by threshold: the budgets as text ("0.01") and "fixed", the paper's T.

    `tpr` and `f1` are of *all* `poisoned` images; `tpr_successful` of those `successful` ones that get the
    target label, None without any. Intervals are 95 % bootstrap ones. `class_fpr` (K,) is by predicted label
    at the 5 % budget, None for labels that no benign image got.

    `terms`, `passes`, `seconds` and `unequal` are of the 5 % budget's early exit, as `Kind` says, per benign
    and per poisoned image; verdicts that differ from the exact score's must be 0. Seconds are those of the
    machine that measured them. Of a model without a backdoor all that poisoned images tell is None or empty.
    """

    detector: str
    auroc: float | None
    target_auroc: float | None
    tpr: dict[str, float]
    fpr: dict[str, float]
    terms: tuple[float, float | None]
    judged: int
    unequal: int
    auroc_interval: Interval | None
    target_auroc_interval: Interval | None
    f1: dict[str, float]
    tpr_successful: dict[str, float] | None
    poisoned: int
    successful: int
    class_fpr: list[float | None]
    passes: tuple[float | None, float | None]
    seconds: tuple[float, float | None]
    compared: int = 0


def figures_of(scored: Scored) -> Figures:
    """Everything that is reported of `scored`."""
    benign, poisoned, target = scored.benign, scored.poisoned, scored.target
    alarms = {name: benign.rejected(limit) for name, limit in scored.limits.items()}
    fpr = {name: float(each.mean()) for name, each in alarms.items()}
    by_class = _class_fpr(alarms[LAST], benign.predicted, len(scored.limits[LAST]))
    if poisoned is None or target is None:
        return Figures(
            scored.detector, None, None, {}, fpr, (benign.terms, None), len(benign.scores), benign.unequal,
            None, None, {}, None, 0, 0, by_class, (benign.passes, None), (benign.seconds, None),
            _compared(benign),
        )  # fmt: skip
    stopped = {name: poisoned.rejected(limit) for name, limit in scored.limits.items()}
    success = poisoned.predicted == target
    within = (benign.scores, benign.predicted, poisoned.scores, target)
    return Figures(
        detector=scored.detector,
        auroc=auroc(benign.scores, poisoned.scores),
        target_auroc=target_auroc(*within),
        tpr={name: float(each.mean()) for name, each in stopped.items()},
        fpr=fpr,
        terms=(benign.terms, poisoned.terms),
        judged=len(benign.scores) + len(poisoned.scores),
        unequal=benign.unequal + poisoned.unequal,
        auroc_interval=auroc_interval(benign.scores, poisoned.scores),
        target_auroc_interval=target_auroc_interval(*within),
        f1={n: f1(int(alarms[n].sum()), int(stopped[n].sum()), len(success)) for n in stopped},
        tpr_successful={n: float(each[success].mean()) for n, each in stopped.items()}
        if success.any()
        else None,
        poisoned=len(success),
        successful=int(success.sum()),
        class_fpr=by_class,
        passes=(benign.passes, poisoned.passes),
        seconds=(benign.seconds, poisoned.seconds),
        compared=_compared(benign) + _compared(poisoned),
    )


def _compared(kind: Kind) -> int:
    return len(kind.scores) if kind.compared is None else kind.compared


def _class_fpr(alarms: np.ndarray, predicted: Integers, classes: int) -> list[float | None]:
    of_class = [alarms[predicted == label] for label in range(classes)]
    return [float(each.mean()) if len(each) else None for each in of_class]


def write_scores(path: Path, scored: Sequence[Scored]) -> None:
    """Write an .npz (no pickles): `DETECTOR/benign`, `DETECTOR/poisoned` (N,) exact scores, and
    `predicted/benign`, `predicted/poisoned` (N,) the labels given; nothing poisoned without a backdoor."""
    arrays: dict[str, Any] = {}
    for each in scored:
        for name, kind in (("benign", each.benign), ("poisoned", each.poisoned)):
            if kind is not None:
                arrays[f"{each.detector}/{name}"] = kind.scores
                arrays[f"predicted/{name}"] = kind.predicted
    partial = path.with_name(f"{path.name}.partial")
    with partial.open("wb") as file:
        np.savez_compressed(file, **arrays)
    partial.replace(path)
