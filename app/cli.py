"""The `triggerwall` command.

Exit codes: 0 all is well; 1 it worked, and the news is bad (an image rejected, flagged or unreadable; a
calibration without power or at odds with its labels; a demo that failed); 2 what was asked for is wrong
(a bundle, a setting, a file); 3 the gateway cannot be reached or answered with a problem.
"""

import json
import logging
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated, Any

import typer
import uvicorn
from pydantic import ValidationError
from rich.console import Console
from rich.markup import escape
from rich.progress import (
    BarColumn,
    DownloadColumn,
    Progress,
    SpinnerColumn,
    TextColumn,
    TimeElapsedColumn,
    track,
)

from app.client import Advance, ClientError, GatewayClient, image_files
from app.inspection import inspect_bundle
from app.main import create_app
from app.settings import Settings, SettingsError, unknown_variables
from app.store import StoreError
from app.tables import calibration_table, classes_table, facts_table, results_table
from bench.cli import app as bench_app
from detectors.base import DetectorError
from lab.cli import app as lab_app
from lab.demo.run import demo
from models.errors import ModelError

app = typer.Typer(
    no_args_is_help=True, add_completion=False, help="An inference firewall for image classifiers."
)
app.add_typer(lab_app, name="lab")
app.add_typer(bench_app, name="bench")
app.command("demo")(demo)
learn_app = typer.Typer(no_args_is_help=True, help="Start without benign images: learn from the traffic.")
app.add_typer(learn_app, name="learn")
console = Console()
errors = Console(stderr=True)

NEWS, WRONG, UNREACHABLE = 1, 2, 3
Url = Annotated[str, typer.Option(envvar="TRIGGERWALL_URL", help="Where the gateway answers.")]
Key = Annotated[str | None, typer.Option(envvar="TRIGGERWALL_ADMIN_KEY", help="The gateway's admin key.")]
AsJson = Annotated[bool, typer.Option("--json", help="Print the gateway's answer as JSON.")]
DEFAULT_URL = "http://127.0.0.1:8000"
IMAGES_PER_REQUEST = 32
KEEP_ALIVE_S = 75  # longer than the proxies before it keep an idle connection


def main() -> None:
    app()


@contextmanager
def told_plainly() -> Iterator[None]:
    """Errors that the person at the keyboard can mend end the command in one sentence and an exit code."""
    try:
        yield
    except ClientError as error:
        errors.print(str(error), style="red", markup=False)
        raise typer.Exit(UNREACHABLE) from None
    except ValidationError as error:
        for fault in error.errors():
            sentence = f"{'.'.join(map(str, fault['loc'])) or 'settings'}: {fault['msg']}"
            errors.print(sentence, style="red", markup=False)
        raise typer.Exit(WRONG) from None
    except (ModelError, DetectorError, StoreError, SettingsError, ValueError) as error:
        errors.print(str(error), style="red", markup=False)
        raise typer.Exit(WRONG) from None


def given(**flags: Any) -> dict[str, Any]:
    """The flags that were really given; the rest come from the environment, the file or the defaults."""
    return {name: value for name, value in flags.items() if value is not None}


@app.command()
def serve(
    bundle: Annotated[Path | None, typer.Option(help="Directory of the model bundle.")] = None,
    host: Annotated[str | None, typer.Option(help="Address to bind.")] = None,
    port: Annotated[int | None, typer.Option(help="TCP port to bind.")] = None,
    mode: Annotated[str | None, typer.Option(help="enforce or monitor.")] = None,
    config: Annotated[Path | None, typer.Option(help="YAML file of settings.")] = None,
) -> None:
    """Run the gateway. Everything else is set by TRIGGERWALL_* variables or the file."""
    with told_plainly():
        settings = Settings(**given(bundle=bundle, host=host, port=port, mode=mode, config=config))
        logging.basicConfig(
            level=settings.log_level.upper(), format="%(asctime)s %(levelname)s %(name)s: %(message)s"
        )
        for name in unknown_variables():
            logging.getLogger("triggerwall").warning("%s is no setting: is it misspelt?", name)
        service = create_app(settings)
    uvicorn.run(
        service,
        host=settings.host,
        port=settings.port,
        log_config=None,
        access_log=False,
        server_header=False,
        timeout_keep_alive=KEEP_ALIVE_S,
    )


@app.command()
def calibrate(
    source: Annotated[Path, typer.Argument(help="Benign images: a folder or zip with one folder per class.")],
    url: Url = DEFAULT_URL,
    api_key: Key = None,
    alpha: Annotated[float | None, typer.Option(help="Share of benign images that may be rejected.")] = None,
    as_json: AsJson = False,
) -> None:
    """Send benign images and print what the detectors can do on this model."""
    with told_plainly(), GatewayClient(url, api_key) as gateway:
        columns = (
            SpinnerColumn(),
            TextColumn("{task.description}"),
            BarColumn(),
            DownloadColumn(),
            TimeElapsedColumn(),
        )
        with Progress(*columns, console=errors, transient=True) as progress:

            def started(total: int) -> Advance:
                bar = progress.add_task("sending", total=total)

                def advance(step: int) -> None:
                    progress.advance(bar, step)
                    if progress.tasks[bar].finished:
                        progress.update(bar, description="sent; the gateway is measuring")

                return advance

            report = gateway.calibrate(source, alpha, started)
        if as_json:
            print(json.dumps(report, indent=2))
        else:
            print_report(report)
    accuracy = report["benign_accuracy"]
    powerless = all(part["power"].startswith("none") for part in report["detectors"])
    if powerless or (accuracy is not None and accuracy < 0.5):
        raise typer.Exit(NEWS)


def print_report(report: dict[str, Any]) -> None:
    labels = "labelled" if report["labelled"] else "unlabelled"
    console.print(
        f"calibration [bold]{report['id']}[/] of {report['model']['name']} {report['model']['version']}: "
        f"{report['images']} {labels} images, false-positive budget {report['alpha']:.2%}"
    )
    if report["benign_accuracy"] is not None:
        console.print(f"The classifier agrees with {report['benign_accuracy']:.2%} of the labels.")
    for part in report["detectors"]:
        if "sink" in part["fit"]:
            sink = part["fit"]["sink"]
            console.print(
                f"Amplified (k = {part['fit']['k']}), {sink['share']:.0%} of benign predictions collapse "
                f"into label {sink['label']}."
            )
    console.print(calibration_table(report), classes_table(report))
    for warning in report["warnings"]:
        console.print(f"[yellow]note:[/] {escape(warning)}")


@app.command()
def classify(
    files: Annotated[list[Path], typer.Argument(help="Images, or folders of images.")],
    url: Url = DEFAULT_URL,
    api_key: Key = None,
    full: Annotated[
        bool, typer.Option(help="Exact scores instead of early exit (needs the admin key).")
    ] = False,
    as_json: AsJson = False,
) -> None:
    """Send images and print what was let through and what was stopped."""
    with told_plainly(), GatewayClient(url, api_key) as gateway:
        found = image_files(files)
        if not found:
            raise ValueError("there are no images in what was named")
        requests = [found[i : i + IMAGES_PER_REQUEST] for i in range(0, len(found), IMAGES_PER_REQUEST)]
        rows: list[tuple[str, dict[str, Any]]] = []
        for paths in track(requests, "classifying", console=errors, transient=True):
            rows += zip(map(str, paths), gateway.classify(paths, full=full), strict=True)
    if as_json:
        print(json.dumps([{"file": file, **result} for file, result in rows], indent=2))
    else:
        console.print(results_table(rows), summary(rows))
    if any(result["verdict"] != "accepted" for _, result in rows):
        raise typer.Exit(NEWS)


@learn_app.command("status")
def learn_status(url: Url = DEFAULT_URL, api_key: Key = None) -> None:
    """Say how much of the traffic was learnt, and whether it has changed since the calibration."""
    with told_plainly(), GatewayClient(url, api_key) as gateway:
        info = gateway.info()
    learning, drift = info["learning"], info["drift"]
    if learning is None:
        console.print("The gateway does not learn from traffic: set TRIGGERWALL_LEARN_FROM_TRAFFIC=true.")
    else:
        console.print(
            f"{learning['images']} of {learning['capacity']} images of traffic are kept as figures "
            f"({learning['needed']} needed at the least)" + (", learning." if learning["learning"] else ".")
        )
    console.print(f"mode {info['mode']}, traffic {drift['state']} after {drift['images']} images watched")
    if drift["state"] in ("drifting", "under_attack"):
        raise typer.Exit(NEWS)


@learn_app.command("activate")
def learn_activate(
    url: Url = DEFAULT_URL,
    api_key: Key = None,
    alpha: Annotated[float | None, typer.Option(help="Share of benign images that may be rejected.")] = None,
    contamination: Annotated[
        float | None, typer.Option(help="Share of the traffic that may be poisoned, up to 0.2.")
    ] = None,
    enforce: Annotated[bool, typer.Option(help="Then switch from monitoring to enforcing.")] = False,
) -> None:
    """Calibrate on the traffic learnt so far and judge by that."""
    with told_plainly(), GatewayClient(url, api_key) as gateway:
        print_report(gateway.learn(alpha, contamination))
        if enforce:
            gateway.switch("enforce")
            console.print("The gateway enforces now, until it is restarted: then the setting `mode` holds.")


def summary(rows: Sequence[tuple[str, dict[str, Any]]]) -> str:
    counts: dict[str, int] = {}
    for _, result in rows:
        verdict = result["verdict"] or "unreadable"
        counts[verdict] = counts.get(verdict, 0) + 1
    return ", ".join(f"{count} {verdict}" for verdict, count in sorted(counts.items()))


@app.command()
def inspect(
    bundle: Annotated[Path | None, typer.Option(help="Directory of the model bundle.")] = None,
) -> None:
    """Say what a model is and which detectors can guard it."""
    with told_plainly():
        facts, can_be_guarded = inspect_bundle(Settings(**given(bundle=bundle)))
    console.print(facts_table(facts))
    if not can_be_guarded:
        raise typer.Exit(NEWS)
