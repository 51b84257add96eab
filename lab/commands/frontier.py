"""`triggerwall lab frontier`: What IBD-PSC costs and detects as ω and n vary."""

from typing import Annotated

import typer
from rich.progress import Progress

from lab.commands.common import (
    DEFAULT_DEVICE,
    Bundle,
    Calibration,
    Channels,
    Data,
    Device,
    Images,
    Out,
    Seed,
    console,
    errors,
    open_device,
    told_plainly,
    warn,
    write_json,
)
from lab.frontier import NS, OMEGAS, explore, frontier_table
from lab.judge import open_study
from lab.sources import open_split

__all__ = ["frontier_command"]


def frontier_command(
    bundle: Bundle,
    data: Data,
    omega: Annotated[list[float] | None, typer.Option(help="Amplification; may be repeated.")] = None,
    n: Annotated[list[int] | None, typer.Option(min=1, help="Amplified networks; may be repeated.")] = None,
    xi: Annotated[float, typer.Option(min=0.0, max=1.0, help="Benign error rate that picks k.")] = 0.6,
    calibration: Calibration = 1000,
    images: Images = 1000,
    channels: Channels = 3,
    out: Out = None,
    seed: Seed = 0,
    device: Device = DEFAULT_DEVICE,
) -> None:
    """What IBD-PSC costs and detects on one model as ω and n vary, k by algorithm 1."""
    with told_plainly():
        test = open_split(data, "test", channels, warn)
        study = open_study(bundle, test, calibration, images, seed, open_device(device), ["psc"])
        with Progress(console=errors, transient=True) as progress:
            task = progress.add_task("", total=1.0)
            spots = explore(
                study, omega or OMEGAS, n or NS, xi,
                lambda what, share: progress.update(task, description=what, completed=share),
            )  # fmt: skip
        console.print(frontier_table(study, spots))
        write_json(out, spots)
