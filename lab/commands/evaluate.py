"""`triggerwall lab evaluate`: judge every detector on one model."""

from typing import Annotated

import typer
from rich.progress import track

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
from lab.judge import DETECTORS, figures_table, judge, open_study
from lab.sources import open_split

__all__ = ["evaluate_command"]


def evaluate_command(
    bundle: Bundle,
    data: Data,
    calibration: Calibration = 1000,
    images: Images = 2000,
    detector: Annotated[
        list[str] | None, typer.Option(help=f"{', '.join(DETECTORS)}; all by default.")
    ] = None,
    channels: Channels = 3,
    out: Out = None,
    seed: Seed = 0,
    device: Device = DEFAULT_DEVICE,
) -> None:
    """Judge every detector on one model: the attack it was trained with, and benign images."""
    with told_plainly():
        test = open_split(data, "test", channels, warn)
        study = open_study(bundle, test, calibration, images, seed, open_device(device), detector or [])
        figures = [judge(detector, study) for detector in track(study.detectors, "judging", console=errors)]
        console.print(figures_table(study, figures))
        write_json(out, figures)
