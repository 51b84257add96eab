"""`triggerwall lab backends`: the same classifier through every backend."""

import json
from dataclasses import asdict
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Annotated

import torch
import typer

from lab.backends import agreement_table, compare
from lab.commands.common import (
    Bundle,
    Calibration,
    Channels,
    Data,
    Images,
    Out,
    Seed,
    console,
    told_plainly,
    warn,
)
from lab.guard import DETECTORS
from lab.judge import open_study
from lab.sources import open_split

__all__ = ["backends_command"]


def backends_command(
    bundle: Bundle,
    data: Data,
    calibration: Calibration = 1000,
    images: Images = 1000,
    alpha: Annotated[float, typer.Option(help="False-positive budget of each detector.")] = 0.05,
    channels: Channels = 3,
    whole: Annotated[bool, typer.Option(help="All images, not only a test split.")] = False,
    out: Out = None,
    seed: Seed = 0,
) -> None:
    """Export a model to every backend and compare scores and verdicts; exit code 1 where one differs."""
    with told_plainly(), TemporaryDirectory() as folder:
        test = open_split(data, None if whole else "test", channels, warn)
        study = open_study(bundle, test, calibration, images, seed, torch.device("cpu"), DETECTORS)
        rows = compare(study, Path(folder), alpha)
    console.print(agreement_table(study.classifier.info.name, rows))
    if out is not None:
        out.write_text(json.dumps([asdict(row) for row in rows], indent=2) + "\n", encoding="utf-8")
    if any(row.verdicts for row in rows):
        raise typer.Exit(1)
