"""`triggerwall lab evidence`: how far benign predictions collapse."""

from pathlib import Path
from typing import Annotated

import typer
from rich.progress import track

from lab.commands.common import (
    DEFAULT_DEVICE,
    Channels,
    Data,
    Device,
    Seed,
    console,
    errors,
    open_device,
    told_plainly,
    warn,
)
from lab.evidence import evidence_table, measure_evidence, merge
from lab.sources import open_split

__all__ = ["evidence_command"]


def evidence_command(
    bundle: Annotated[list[Path], typer.Option(help="A model bundle; several may be named.")],
    data: Data,
    images: Annotated[int, typer.Option(min=20, help="Benign test images to measure on.")] = 1000,
    channels: Channels = 3,
    out: Annotated[Path | None, typer.Option(help="Add the figures to this JSON file.")] = None,
    seed: Seed = 0,
    device: Device = DEFAULT_DEVICE,
) -> None:
    """Measure how far benign predictions collapse into one class when a model is amplified or its input
    scaled. The gateway's reports compare with such figures."""
    with told_plainly():
        where, test = open_device(device), open_split(data, "test", channels, warn)
        found = [
            measure_evidence(each, test, data, images, seed, where)
            for each in track(bundle, "measuring", console=errors)
        ]
        if out is not None:
            names = " ".join(f"--bundle {each.name}" for each in bundle)
            options = f"--data {Path(data).name} --images {images} --channels {channels} --seed {seed}"
            merge(out, found, f"triggerwall lab evidence {names} {options}")
    console.print(evidence_table(found))
