"""What a study's folder holds: per bundle how it was trained, how detectors did, and kept scores."""

import zipfile
import zlib
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
from pydantic import BaseModel, ConfigDict, FiniteFloat, TypeAdapter, ValidationError

from lab.data import LabError
from lab.judging import NOISE_FILE, RESULTS_FILE, SCORES_FILE
from lab.metrics import Floats
from lab.record import RECORD_FILE, read_record, read_settings
from lab.report.extras import Ablated, Behaviour, read_ablation, read_behaviour, read_triggers

__all__ = ["TOOK", "Bundle", "Row", "Scores", "read_study"]

TOOK = 0.9
"""The ASR from which on an attack counts as one that took."""

T = TypeVar("T")
Pair = tuple[FiniteFloat | None, FiniteFloat | None]
Interval = tuple[FiniteFloat, FiniteFloat]
Scores = tuple[Floats, Floats]
"""Of benign (m,) and of poisoned (n,) images."""


class Row(BaseModel):
    """One detector's line of an evaluation, `lab.figures.Figures`; older ones lack some of it."""

    model_config = ConfigDict(frozen=True)

    detector: str
    auroc: FiniteFloat | None = None
    auroc_interval: Interval | None = None
    target_auroc: FiniteFloat | None = None
    target_auroc_interval: Interval | None = None
    tpr: dict[str, FiniteFloat] = {}
    tpr_successful: dict[str, FiniteFloat] | None = None
    fpr: dict[str, FiniteFloat] = {}
    f1: dict[str, FiniteFloat] = {}
    class_fpr: list[FiniteFloat | None] = []
    passes: Pair = (None, None)
    seconds: Pair = (None, None)
    judged: int = 0
    poisoned: int | None = None
    noise: FiniteFloat = 0.0


ROWS = TypeAdapter(list[Row])


@dataclass(frozen=True)
class Bundle:
    """`attack` None: a benign model. `trouble`: what of it could not be read. `architecture` is empty where
    nothing of its training is known. `noisy`: the rows of the evaluation with noise; `triggers`: a PNG;
    `variant`: what else decided the training but the poisoning rate, the seed and the name."""

    name: str
    architecture: str = ""
    attack: str | None = None
    target: int = 0
    benign_accuracy: float | None = None
    success_rate: float | None = None
    rows: Mapping[str, Row] = field(default_factory=dict)
    scores: Mapping[str, Scores] = field(default_factory=dict)
    trouble: str | None = None
    poison_rate: float | None = None
    variant: str = ""
    noisy: Mapping[str, Row] = field(default_factory=dict)
    behaviour: Behaviour | None = None
    ablation: tuple[Ablated, ...] = ()
    triggers: bytes | None = None

    @property
    def took(self) -> bool:
        """Does its backdoor work, so that it counts in means?"""
        return self.attack is not None and self.success_rate is not None and self.success_rate >= TOOK

    @property
    def state(self) -> str:
        """In words, for people."""
        if not self.architecture:
            return self.trouble or "not known"
        return f"{self._attacked}; {self.trouble}" if self.trouble else self._attacked

    @property
    def _attacked(self) -> str:
        if self.attack is None:
            return "benign model"
        if self.success_rate is None:
            return "ASR not recorded"
        return "took" if self.took else f"did not take (ASR < {TOOK:g})"


def read_study(folder: Path) -> list[Bundle]:
    """Every bundle at or below `folder` with a training record, by name; what cannot be read of one is told
    as its `trouble`. Raises `LabError` where there is none at all."""
    records = sorted(folder.rglob(RECORD_FILE))
    if not records:
        raise LabError(f"{folder} has no {RECORD_FILE} in it: give the folder that `lab study` wrote to")
    return [_read_bundle(record.parent, _name(record.parent, folder)) for record in records]


def _name(bundle: Path, folder: Path) -> str:
    return bundle.relative_to(folder).as_posix() if bundle != folder else folder.resolve().name


def _read_bundle(folder: Path, name: str) -> Bundle:
    try:
        record, settings = read_record(folder), read_settings(folder)
    except LabError:
        return Bundle(name, trouble=f"{RECORD_FILE} cannot be read")
    accuracy, success = (_rate(record.get(key)) for key in ("benign_accuracy", "attack_success_rate"))
    known = Bundle(
        name, settings.architecture, settings.attack, settings.target, accuracy, success,
        poison_rate=settings.poison_rate,
        variant=settings.model_dump_json(exclude={"name", "poison_rate", "seed"}),
    )  # fmt: skip
    trouble: list[str] = []
    known = replace(
        known,
        behaviour=_told(lambda: read_behaviour(folder), None, trouble),
        ablation=_told(lambda: read_ablation(folder), (), trouble),
        triggers=_told(lambda: read_triggers(folder), None, trouble),
        noisy=_told(lambda: _read_rows(folder / NOISE_FILE, needed=False), {}, trouble),
    )
    nothing: dict[str, Row] = {}
    unscored: dict[str, Scores] = {}
    rows = _told(lambda: _read_rows(folder / RESULTS_FILE), nothing, trouble)
    scores = _told(lambda: _read_scores(folder / SCORES_FILE, rows), unscored, trouble)
    return replace(known, rows=rows, scores=scores, trouble="; ".join(trouble) or None)


def _told(read: Callable[[], T], otherwise: T, trouble: list[str]) -> T:
    """What `read` returns; `otherwise`, with a sentence more in `trouble`, where it raises `LabError`."""
    try:
        return read()
    except LabError as error:
        trouble.append(str(error))
        return otherwise


def _rate(value: Any) -> float | None:
    return float(value) if isinstance(value, int | float) and 0 <= value <= 1 else None


def _read_rows(path: Path, needed: bool = True) -> dict[str, Row]:
    if not path.exists():
        if needed:
            raise LabError("not judged yet")
        return {}
    try:
        return {row.detector: row for row in ROWS.validate_json(path.read_bytes())}
    except (OSError, ValueError) as error:  # pydantic's is a ValueError
        reason = error.errors()[0]["msg"] if isinstance(error, ValidationError) else error
        raise LabError(f"its evaluation cannot be read: {reason}") from error


def _read_scores(path: Path, rows: Mapping[str, Row]) -> dict[str, Scores]:
    """Of the detectors with both kinds; a benign model has nothing to compare."""
    if not path.exists():
        return {}
    try:
        with np.load(path, allow_pickle=False) as kept:
            pairs = {name: (f"{name}/benign", f"{name}/poisoned") for name in rows}
            return {
                name: (_finite(kept[benign]), _finite(kept[poisoned]))
                for name, (benign, poisoned) in pairs.items()
                if benign in kept.files and poisoned in kept.files
            }
    except (OSError, EOFError, ValueError, zipfile.BadZipFile, zlib.error) as error:
        raise LabError("its scores cannot be read") from error


def _finite(scores: np.ndarray) -> Floats:
    if scores.ndim != 1 or not len(scores) or not np.isfinite(scores).all():
        raise ValueError("not a row of scores")
    return scores.astype(np.float64)
