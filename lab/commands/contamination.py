"""`triggerwall lab contamination`: what triggered images among the calibration images cost."""

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
    Out,
    Seed,
    console,
    errors,
    open_device,
    told_plainly,
    warn,
    write_json,
)
from lab.commands.pools import Kept, Pool, Whole, kept_in
from lab.contamination import contamination_table, measure_contamination
from lab.data import LabError
from lab.judge import open_detectors
from lab.pools import draw_attacked, measure_once
from lab.record import load_attack, read_settings
from lab.sources import open_split
from models.loading import load_network

__all__ = ["contamination_command"]

TOGETHER = ("profile", "psc", "spc")


def contamination_command(
    bundle: Bundle,
    data: Data,
    alpha: Annotated[float, typer.Option(min=0.0, max=1.0, help="Budget of all detectors together.")] = 0.05,
    splits: Annotated[int, typer.Option(min=1, help="Random splits.")] = 40,
    calibration: Calibration = 1000,
    images: Pool = 3000,
    triggered: Annotated[int, typer.Option(min=1, help="Images that get the trigger, at most.")] = 700,
    detector: Annotated[
        list[str] | None, typer.Option(help=f"Together; {', '.join(TOGETHER)} by default.")
    ] = None,
    channels: Channels = 3,
    whole: Whole = False,
    evidence: Kept = None,
    out: Out = None,
    seed: Seed = 0,
    device: Device = DEFAULT_DEVICE,
) -> None:
    """What triggered images among the calibration images cost, with and without the defences."""
    with told_plainly():
        settings = read_settings(bundle)
        if settings.attack is None:
            raise LabError(f"{bundle} was trained without an attack: it has no trigger")
        attack = load_attack(bundle)
        classifier = load_network(bundle, open_device(device))
        test = open_split(data, None if whole else "test", channels, warn)
        example = test.images[:2].to(classifier.device).float() / 255
        detectors = open_detectors(classifier, example, detector or TOGETHER)
        benign, stamped = draw_attacked(test, images, triggered, attack, settings.target, seed)
        pools = [
            measure_once(kept_in(evidence, kind), classifier, detectors, pool, f"{kind} images")
            for kind, pool in (("benign", benign), ("triggered", stamped))
        ]
        outcomes = measure_contamination(
            detectors,
            pools[0],
            pools[1],
            calibration,
            splits,
            alpha,
            seed,
            progress=lambda numbers: track(numbers, "splitting", console=errors, transient=True),
        )
    console.print(contamination_table(classifier.info.name, calibration, alpha, outcomes))
    write_json(out, outcomes)
