"""`triggerwall lab power`: Does the power probe predict?"""

import json
from pathlib import Path
from typing import Annotated

import typer
from rich.progress import track

from lab.commands.common import (
    DATA_HELP,
    DEFAULT_DEVICE,
    Calibration,
    Device,
    Seed,
    console,
    errors,
    open_device,
    told_plainly,
    warn,
)
from lab.data import LabError
from lab.judge import open_study
from lab.power import Point, compare, power_table, scatter, to_json
from lab.sources import open_split
from models.bundle import read_spec

__all__ = ["power_command"]


def power_command(
    bundle: Annotated[list[Path], typer.Option(help="Bundles that `lab train` made; repeat it.")],
    data: Annotated[list[str], typer.Option(help=f"One for all bundles, or one for each. {DATA_HELP}")],
    calibration: Calibration = 1000,
    images: Annotated[int, typer.Option(min=1, help="Benign images to judge, at most.")] = 500,
    detector: Annotated[list[str] | None, typer.Option(help="profile, psc, spc, nspc.")] = None,
    target: Annotated[
        list[int] | None, typer.Option(help="Labels to aim at besides each attack's own; by default 1 and 2.")
    ] = None,
    seconds: Annotated[float, typer.Option(min=1, help="For the probes of each model.")] = 120,
    out: Annotated[Path | None, typer.Option(help="Write the points there as JSON.")] = None,
    plot: Annotated[Path | None, typer.Option(help="Draw them there, as PNG or SVG.")] = None,
    seed: Seed = 0,
    device: Device = DEFAULT_DEVICE,
) -> None:
    """Does the power probe predict what detectors do against these models' own backdoors?"""
    names = detector or ["profile", "psc", "spc"]
    points: list[Point] = []
    with told_plainly():
        if len(data) not in (1, len(bundle)):
            raise LabError(f"{len(data)} times --data for {len(bundle)} bundles: give one, or one for each")
        sources = data if len(data) > 1 else data * len(bundle)
        pairs = list(zip(bundle, sources, strict=True))
        for path, source in track(pairs, "probing and judging", console=errors):
            test = open_split(source, "test", read_spec(path).input.channels, warn)
            study = open_study(path, test, calibration, images, seed, open_device(device), names)
            points += compare(study, names, seconds, [study.target, *(target or [1, 2])])
            if out is not None:  # after every model: it takes minutes, and a kill should not cost them all
                out.write_text(json.dumps(to_json(points), indent=2) + "\n", encoding="utf-8")
        if plot is not None:
            scatter(points, plot)
    console.print(power_table(points))
    for measure, found in to_json(points)["agreement"].items():
        console.print(f"{measure}: {json.dumps(found)}", soft_wrap=True)
