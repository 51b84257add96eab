"""`training.json` and `trigger.safetensors`: how a bundle was made, and the trigger that it answers to."""

import json
import platform
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from pydantic import ValidationError
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor

from lab.attacks import ATTACKS, Attack
from lab.data import ImageSet, LabError
from lab.settings import TrainSettings

__all__ = [
    "RECORD_FILE",
    "build_attack",
    "load_attack",
    "prepared_attack",
    "read_record",
    "read_settings",
    "recorded_settings",
    "write_record",
]

RECORD_FILE = "training.json"
TRIGGER_FILE = "trigger.safetensors"


def build_attack(name: str, settings: Mapping[str, Any]) -> Attack:
    """The attack `name` with `settings` in place of its paper's values; not prepared yet.

    Raises `LabError` for an unknown attack or setting and for a value of another type.
    """
    if name not in ATTACKS:
        raise LabError(f"unknown attack {name!r}; known: none, {', '.join(sorted(ATTACKS))}")
    try:
        usual = ATTACKS[name]().settings()
        given = {key: _like(usual, key, value) for key, value in settings.items()}
        return ATTACKS[name](**given)
    except ValueError as error:
        raise LabError(f"{name}: {error}") from error


def _like(usual: Mapping[str, Any], key: str, value: Any) -> Any:
    """`value`, where it is of the type of the usual value of `key`."""
    if key not in usual:
        known = ", ".join(usual) or "none"
        raise ValueError(f"unknown setting {key!r}; known: {known}")
    wanted = type(usual[key])
    if wanted is tuple and isinstance(value, list | tuple):
        return tuple(value)
    if wanted is float and type(value) is int:
        return float(value)
    if type(value) is not wanted:
        raise ValueError(f"{key} is of type {wanted.__name__}, such as {usual[key]!r}, not {value!r}")
    return value


def write_record(folder: Path, settings: TrainSettings, facts: dict[str, Any]) -> None:
    """Write `training.json`: the settings, the attack's own ones in full, and `facts` (JSON)."""
    versions = {"torch": torch.__version__.split("+")[0], "python": platform.python_version()}
    text = json.dumps({"settings": recorded_settings(settings), **versions, **facts}, indent=2) + "\n"
    (folder / RECORD_FILE).write_text(text, encoding="utf-8")


def recorded_settings(settings: TrainSettings) -> dict[str, Any]:
    """`settings` as a record that `write_record` wrote has them, read back. Raises `LabError`."""
    attack = build_attack(settings.attack, settings.attack_settings) if settings.attack else None
    full = settings.model_dump() | {"attack_settings": attack.settings() if attack else {}}
    back: dict[str, Any] = json.loads(json.dumps(full))  # tuples come back as lists
    return back


def read_record(bundle: Path) -> dict[str, Any]:
    """The contents of `training.json`. Raises `LabError` where there is none, or it is none."""
    path = bundle / RECORD_FILE
    if not path.exists():
        raise LabError(f"{bundle} has no {RECORD_FILE}: the attack is not known")
    try:
        record = json.loads(path.read_text(encoding="utf-8"))
        TrainSettings.model_validate(record["settings"])
    except (OSError, ValueError, KeyError, TypeError) as error:  # pydantic's is a ValueError
        reason = error.errors()[0]["msg"] if isinstance(error, ValidationError) else error
        raise LabError(f"{path} is no record of a training run: {reason}") from error
    return dict(record)


def read_settings(bundle: Path) -> TrainSettings:
    """What `bundle` was trained with. Raises `LabError` where there is no record of it."""
    return TrainSettings.model_validate(read_record(bundle)["settings"])


def load_attack(bundle: Path) -> Attack:
    """The attack that `bundle` was trained with, its trigger as it was learnt; ready to `apply`.

    Raises `LabError` where it is not known or there was none.
    """
    settings = read_settings(bundle)
    if settings.attack is None:
        raise LabError(f"{bundle} was trained without an attack: it has no trigger")
    attack = build_attack(settings.attack, settings.attack_settings)
    path = bundle / TRIGGER_FILE
    return attack if not path.exists() else attack.restored(_read_trigger(path)[0])


def prepared_attack(
    attack: Attack, data: ImageSet, settings: TrainSettings, folder: Path, device: torch.device
) -> Attack:
    """`attack` with what it learns from the clean `data` first, kept in `folder` as `trigger.safetensors`.

    A run that was killed after that finds it there. Raises `LabError` where another run's lies there, and
    where the attack cannot work on these images.
    """
    path = folder / TRIGGER_FILE
    run = {"settings": settings.model_dump_json(), "data": data.fingerprint()}
    if path.exists():
        tensors, found = _read_trigger(path)
        if found != run:
            raise LabError(f"{path} is of another run: remove it or choose another folder")
        return attack.restored(tensors)
    try:
        ready = attack.prepared(data, settings.target, settings.seed, device)
    except ValueError as error:
        raise LabError(f"{attack.name}: {error}") from error
    tensors = {name: value.detach().cpu().contiguous() for name, value in ready.tensors().items()}
    if tensors:
        partial = path.with_suffix(".partial")
        save_file(tensors, partial, metadata=run)
        partial.chmod(0o644)  # safetensors writes for its owner only
        partial.replace(path)
    return ready


def _read_trigger(path: Path) -> tuple[dict[str, Tensor], dict[str, str]]:
    """The tensors, and which run they are of."""
    try:
        with safe_open(path, framework="pt") as file:
            return {name: file.get_tensor(name) for name in file.keys()}, file.metadata() or {}  # noqa: SIM118
    except (OSError, SafetensorError) as error:
        raise LabError(f"{path} cannot be read: {error}") from error
