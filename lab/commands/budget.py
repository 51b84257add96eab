"""`triggerwall lab budget`: is the false-positive budget kept?"""

import json
from dataclasses import asdict
from typing import Annotated

import typer
from rich.progress import track

from lab.budget import budget_table, measure_budget
from lab.commands.common import (
    DEFAULT_DEVICE,
    Bundle,
    Calibration,
    Channels,
    Data,
    Device,
    Out,
    Seed,
    console,
    errors,
    open_device,
    told_plainly,
    warn,
)
from lab.commands.pools import Kept, Pool, Whole, kept_in
from lab.judge import open_detectors
from lab.pools import draw, measure_once
from lab.sources import open_split
from models.loading import load_network

__all__ = ["budget_command"]

MEASURED = ("profile", "psc", "spc", "nspc")


def budget_command(
    bundle: Bundle,
    data: Data,
    splits: Annotated[int, typer.Option(min=2, help="Random splits.")] = 200,
    calibration: Calibration = 1000,
    images: Pool = 3000,
    detector: Annotated[list[str] | None, typer.Option(help=f"{', '.join(MEASURED)} by default.")] = None,
    channels: Channels = 3,
    whole: Whole = False,
    evidence: Kept = None,
    out: Out = None,
    seed: Seed = 0,
    device: Device = DEFAULT_DEVICE,
) -> None:
    """Is the false-positive budget kept? Benign images, over many random splits; exit code 1 where not."""
    with told_plainly():
        classifier = load_network(bundle, open_device(device))
        test = open_split(data, None if whole else "test", channels, warn)
        example = test.images[:2].to(classifier.device).float() / 255
        detectors = open_detectors(classifier, example, detector or MEASURED)
        benign = draw(test, images, seed)
        pool = measure_once(kept_in(evidence, "benign"), classifier, detectors, benign, "benign images")
        rates = measure_budget(
            detectors,
            pool,
            calibration,
            splits,
            seed,
            progress=lambda numbers: track(numbers, "splitting", console=errors, transient=True),
        )
    console.print(budget_table(classifier.info.name, calibration, rates))
    if out is not None:
        rows = [{**asdict(each), "kept": each.kept} for each in rates]
        out.write_text(json.dumps(rows, indent=2) + "\n", encoding="utf-8")
    if not all(each.kept for each in rates):
        raise typer.Exit(1)
