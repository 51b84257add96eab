"""The `triggerwall` command.

Exit codes: 0 all is well; 1 it worked, and the news is bad (an image rejected, flagged or unreadable; a
calibration without power or at odds with its labels; a demo that failed); 2 what was asked for is wrong
(a bundle, a setting, a file); 3 the gateway cannot be reached or answered with a problem.
"""

import json
import logging
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.progress import Progress, track

from app import logs
from app.calibration_commands import commands as calibration_commands
from app.client import Client, Options, image_files
from app.decision_commands import commands as decision_commands
from app.inspection import inspect_bundle
from app.learn_commands import commands as learn_commands
from app.main import create_app
from app.power import power_table, probe_bundle
from app.serving.server import run
from app.settings import Settings, unknown_variables
from app.settings_reference import markdown, settings_facts
from app.tables import facts_table, results_table, settings_table
from app.terminal import DEFAULT_URL, NEWS, AsJson, Key, Url, console, errors, told_plainly
from bench.cli import app as bench_app
from bench.plan.command import plan
from lab.cli import app as lab_app
from lab.demo.run import demo

app = typer.Typer(
    no_args_is_help=True, add_completion=False, help="An inference firewall for image classifiers."
)
app.add_typer(lab_app, name="lab")
app.add_typer(bench_app, name="bench")
app.command("demo")(demo)
app.command("plan")(plan)
app.add_typer(calibration_commands)
app.add_typer(learn_commands, name="learn")
app.add_typer(decision_commands, name="decisions")
NOT_STARTED = 3  # exit code of `serve`


def main() -> None:
    app()


def given(**flags: Any) -> dict[str, Any]:
    """The flags that were really given; the rest come from the environment, the file or the defaults."""
    return {name: value for name, value in flags.items() if value is not None}


@app.command("settings")
def settings_(
    markdown_page: Annotated[bool, typer.Option("--markdown", help="As the page docs/settings.md.")] = False,
) -> None:
    """List every setting: its environment variable, what it takes, its default."""
    if markdown_page:
        print(markdown(), end="")
        return
    console.print(settings_table(settings_facts()))


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
        logs.set_up(settings.log_level, settings.log_format)
        for name in unknown_variables():
            logging.getLogger("triggerwall").warning("%s is no setting: is it misspelt?", name)
        service = create_app(settings)
    if not run(service, service.state.gateway):  # the reason is in the log
        raise typer.Exit(NOT_STARTED)


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
    with told_plainly(), Client(url, api_key, Options(full=full)) as gateway:
        found = image_files(files)
        if not found:
            raise ValueError("there are no images in what was named")
        answers = track(gateway.results(found), "classifying", len(found), console=errors, transient=True)
        rows: list[tuple[str, Mapping[str, Any]]] = [(str(file), result.content) for file, result in answers]
    if as_json:
        print(json.dumps([{"file": file, **result} for file, result in rows], indent=2))
    else:
        console.print(results_table(rows), summary(rows))
    if any(result["verdict"] != "accepted" for _, result in rows):
        raise typer.Exit(NEWS)


def summary(rows: Sequence[tuple[str, Mapping[str, Any]]]) -> str:
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


@app.command()
def power(
    benign: Annotated[Path, typer.Option(help="Benign images: a folder or zip with one folder per class.")],
    bundle: Annotated[Path | None, typer.Option(help="Directory of the model bundle.")] = None,
    alpha: Annotated[float | None, typer.Option(help="Share of benign images that may be rejected.")] = None,
    target: Annotated[list[int] | None, typer.Option(help="Labels to aim at; three by default.")] = None,
    seconds: Annotated[float, typer.Option(min=1, help="Time for all probes together.")] = 55,
    as_json: Annotated[bool, typer.Option("--json", help="Print the report as JSON.")] = False,
) -> None:
    """Implant known backdoors in copies of a model, and see which of them its detectors would catch."""
    with told_plainly(), Progress(console=errors, transient=True) as progress:
        settings = Settings(**given(bundle=bundle, alpha=alpha))
        bar = progress.add_task("reading images", total=seconds)
        report = probe_bundle(
            settings, benign, targets=target, seconds=seconds,
            tell=lambda what, spent: progress.update(bar, description=what, completed=spent),
        )  # fmt: skip
    if as_json:
        print(json.dumps(report.to_json(), indent=2))
    else:
        console.print(power_table(report), report.summary(), soft_wrap=True)
    if report.caught is None:
        raise typer.Exit(NEWS)
