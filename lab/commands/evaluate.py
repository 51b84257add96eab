"""`triggerwall lab evaluate`: judge every detector on one model."""

from dataclasses import replace
from pathlib import Path
from typing import Annotated, Literal

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
from lab.figures import figures_of, write_scores
from lab.judge import COMPARED, DETECTORS, figures_table, open_study
from lab.scoring import score_images
from lab.sources import open_split

__all__ = ["evaluate_command"]

Split = Literal["train", "test"]


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
    noise: Annotated[
        float,
        typer.Option(min=0, max=1, help="Add noise · U[0, 1) to every judged image; SCALE-UP's code: 0.02."),
    ] = 0.0,
    scores: Annotated[Path | None, typer.Option(help="Write every image's scores there, as .npz.")] = None,
    compared: Annotated[
        int, typer.Option(min=1, help="On so many of each kind, compare early exit with the full score.")
    ] = COMPARED,
    calibrate_on: Annotated[
        Split,
        typer.Option(help="Where calibration images come from; `train` leaves all test images to judge."),
    ] = "test",
    seed: Seed = 0,
    device: Device = DEFAULT_DEVICE,
) -> None:
    """Judge every detector on one model: the attack it was trained with, if any, and benign images."""
    with told_plainly():
        test = open_split(data, "test", channels, warn)
        where = open_device(device)
        source = open_split(data, "train", channels, warn) if calibrate_on == "train" else None
        study = open_study(
            bundle,
            test,
            calibration,
            images,
            seed,
            where,
            detector or [],
            benign_models=True,
            calibrate_on=source,
        )
        study = replace(study.noisy(noise) if noise else study, compared=compared)
        scored = [score_images(each, study) for each in track(study.detectors, "judging", console=errors)]
        figures = [figures_of(each) for each in scored]
        console.print(figures_table(study, figures))
        write_json(out, figures)
        if scores is not None:
            write_scores(scores, scored)
