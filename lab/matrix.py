"""A study's YAML file: which bundles to train, as a product over lists of settings."""

import itertools
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Self

import yaml
from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from lab.data import LabError
from lab.record import RECORD_FILE
from lab.settings import TrainSettings

__all__ = ["Evaluation", "Matrix", "changed", "expand", "read_matrix", "trained_already"]


class Evaluation(BaseModel):
    """What every bundle is judged with afterwards; the options of `lab evaluate`."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    calibration: int = Field(default=1000, ge=99)  # fewer support no budget of 1 %
    images: int = Field(default=2000, ge=1)
    detectors: tuple[str, ...] = ()  # all
    seed: int = 0
    scores: bool = False  # keep every image's, for the report's plots
    noise: float = Field(default=0.0, ge=0, lt=1)  # judged once more with so much; SCALE-UP's code has 0.02
    pictures: bool = False  # confidence under amplification and scaling, features, triggers
    ablate: bool = False  # what each setting is worth


class Matrix(BaseModel):
    """The contents of a study file. Paths are relative to the working directory.

    `defaults` and each of `runs` hold settings of `lab train`; a run's own win. Any setting may be a list:
    one bundle is trained for each of its values, and for each combination with other lists. `bundles` are
    folders (patterns such as `runs/*` too) with bundles that `lab train` has made already: they are judged
    only, and nothing is written into them.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    data: str
    out: Path
    channels: int = 3
    exclude: tuple[str, ...] = ()
    defaults: dict[str, Any] = Field(default_factory=dict)
    runs: tuple[dict[str, Any], ...] = ()
    bundles: tuple[str, ...] = ()
    evaluate: Evaluation | None = None

    @model_validator(mode="after")
    def _something_to_do(self) -> Self:
        if not self.runs and not self.bundles:
            raise ValueError("name runs to train, or bundles to judge")
        if self.bundles and self.evaluate is None:
            raise ValueError("bundles are there to be judged: add `evaluate`")
        return self


def read_matrix(path: Path) -> Matrix:
    """Raises `LabError` naming the field at fault."""
    try:
        return Matrix.model_validate(yaml.safe_load(path.read_text(encoding="utf-8")))
    except ValidationError as error:
        faults = "; ".join(f"{'.'.join(map(str, e['loc'])) or 'file'}: {e['msg']}" for e in error.errors())
        raise LabError(f"{path}: {faults}") from error
    except (OSError, ValueError, yaml.YAMLError) as error:
        raise LabError(f"{path} cannot be read: {error}") from error


def changed(matrix: Matrix, **changes: Any) -> Matrix:
    """`matrix` with other settings than its file names. Raises `LabError` where they cannot be."""
    try:
        return Matrix.model_validate({**matrix.model_dump(), **changes})
    except ValidationError as error:
        raise LabError("; ".join(str(e["msg"]) for e in error.errors())) from error


def trained_already(matrix: Matrix) -> Matrix:
    """The same study without training: of its runs those that are done, as bundles.

    Raises `LabError` where there are none, and where the study does not say how to judge them.
    """
    folders = [matrix.out / settings.name for settings in expand(matrix)]
    done = [str(folder) for folder in folders if (folder / RECORD_FILE).exists()]
    if not done and not matrix.bundles:
        raise LabError(f"{matrix.out} has no trained bundle of this study, and no other one is named")
    return changed(matrix, runs=(), bundles=(*matrix.bundles, *done))


def expand(matrix: Matrix) -> list[TrainSettings]:
    """The settings of every bundle, in the order of the file, each with a name of its own.

    Raises `LabError` for settings that cannot be and for two runs of one name.
    """
    settings = [each for run in matrix.runs for each in _combinations(matrix.defaults, run)]
    names = [each.name for each in settings]
    twice = next((name for name in names if names.count(name) > 1), None)
    if twice is not None:
        raise LabError(f"two runs are called {twice}: give one of them a `name` of its own")
    return settings


def _combinations(defaults: Mapping[str, Any], own: Mapping[str, Any]) -> list[TrainSettings]:
    run = {**defaults, **own}
    lists = {key: value for key, value in run.items() if isinstance(value, list)}
    told = lists.keys() if "name" in run else {**own, **lists}.keys()  # what sets a run apart is in its name
    chosen = [dict(zip(lists, values, strict=True)) for values in itertools.product(*lists.values())]
    return [_settings({**run, **each}, [key for key in told if key != "name"]) for each in chosen]


def _settings(run: dict[str, Any], told: Sequence[str]) -> TrainSettings:
    """The settings `run`, under its own name or that of network and attack, followed by those `told`."""
    if run.get("attack") == "none":
        run["attack"] = None
    usual = {key: field.default for key, field in TrainSettings.model_fields.items()}
    short = {
        "architecture": str(run.get("architecture", usual["architecture"])).rpartition(":")[2],
        "attack": run.get("attack", usual["attack"]) or "benign",
    }
    first = [str(run["name"])] if "name" in run else [short["architecture"], short["attack"]]
    words = [short.get(key) or f"{key}_{_word(run[key])}" for key in told]
    name = "-".join([*first, *(word for word in words if word not in first)])
    try:
        return TrainSettings.model_validate({**run, "name": name})
    except ValidationError as error:
        faults = "; ".join(f"{'.'.join(map(str, e['loc']))}: {e['msg']}" for e in error.errors())
        raise LabError(f"run {name}: {faults}") from error


def _word(value: Any) -> str:
    """`value` as part of a file name."""
    text = "_".join(f"{k}_{v}" for k, v in value.items()) if isinstance(value, dict) else str(value)
    return "".join(letter if letter.isalnum() or letter in "._" else "_" for letter in text)
