"""`triggerwall lab datafree`: what a calibration learnt from traffic is worth."""

from typing import Annotated

import typer

from lab.commands.common import (
    DEFAULT_DEVICE,
    Bundle,
    Channels,
    Data,
    Device,
    Out,
    Seed,
    console,
    open_device,
    told_plainly,
    warn,
    write_json,
)
from lab.datafree import datafree, datafree_table
from lab.guard import DETECTORS
from lab.judge import BUDGETS, open_study
from lab.sources import open_split

__all__ = ["datafree_command"]


def datafree_command(
    bundle: Bundle,
    data: Data,
    benign: Annotated[int, typer.Option(min=40, help="Half calibrate, half are judged.")] = 2000,
    images: Annotated[int, typer.Option(min=1, help="Images to put the trigger on, at most.")] = 600,
    contamination: Annotated[
        float, typer.Option(min=0, max=0.2, help="Share of the traffic assumed poisoned.")
    ] = 0.1,
    splits: Annotated[int, typer.Option(min=1, help="Random halves.")] = 10,
    channels: Channels = 3,
    out: Out = None,
    seed: Seed = 0,
    device: Device = DEFAULT_DEVICE,
) -> None:
    """Compare calibrations learnt from traffic, clean and poisoned, with one on labelled images."""
    with told_plainly():
        test = open_split(data, "test", channels, warn)
        study = open_study(bundle, test, benign, images, seed, open_device(device), DETECTORS)
        rows = datafree(study, BUDGETS, contamination, splits, seed)
        console.print(datafree_table(study, rows, splits))
        write_json(out, rows)
