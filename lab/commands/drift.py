"""`triggerwall lab drift`: how soon the drift watch notices a change, and what it takes it for."""

import json
from dataclasses import asdict
from pathlib import Path
from typing import Annotated

import typer

from lab.commands.common import (
    DEFAULT_DEVICE,
    Bundle,
    Calibration,
    Channels,
    Data,
    Device,
    Seed,
    console,
    open_device,
    told_plainly,
    warn,
)
from lab.drift import Plan, drift_plot, drift_table, simulate
from lab.guard import DETECTORS
from lab.judge import open_study
from lab.sources import open_split

__all__ = ["drift_command"]


def drift_command(
    bundle: Bundle,
    data: Data,
    calibration: Calibration = 1000,
    images: Annotated[int, typer.Option(min=1, help="Images of each kind to draw streams from.")] = 1000,
    alpha: Annotated[float, typer.Option(help="False-positive budget of all detectors together.")] = 0.01,
    run_length: Annotated[float, typer.Option(help="As the gateway's drift_run_length.")] = 1e5,
    before: Annotated[int, typer.Option(min=1, help="Benign images before the change.")] = 2000,
    after: Annotated[int, typer.Option(min=1, help="Images after the change, at most.")] = 5000,
    repetitions: Annotated[int, typer.Option(min=1, help="Streams of each kind.")] = 30,
    channels: Channels = 3,
    out: Annotated[Path | None, typer.Option(help="Write JSON there, and a plot beside it.")] = None,
    seed: Seed = 0,
    device: Device = DEFAULT_DEVICE,
) -> None:
    """Simulate changes of the traffic: how soon the drift watch notices, and what it takes them for."""
    plan = Plan(alpha, run_length, before, after, repetitions, seed)
    with told_plainly():
        test = open_split(data, "test", channels, warn)
        study = open_study(bundle, test, calibration, images, seed, open_device(device), DETECTORS)
        scenarios = simulate(study, plan)
        console.print(drift_table(study, plan, scenarios))
        if out is not None:
            content = {"plan": asdict(plan), "scenarios": [asdict(each) for each in scenarios]}
            out.write_text(json.dumps(content, indent=2) + "\n", encoding="utf-8")
            drift_plot(plan, scenarios, out.with_suffix(".png"))
