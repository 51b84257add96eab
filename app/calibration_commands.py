"""The commands around calibrations: make one, read, compare, carry and enforce them."""

import json
from pathlib import Path
from typing import Annotated, Any

import typer

from app.calibration_text import print_comparison, print_report
from app.client import GatewayClient
from app.tables import calibrations_table
from app.terminal import DEFAULT_URL, NEWS, AsJson, Key, Url, console, told_plainly
from app.upload_progress import upload_progress

__all__ = ["commands"]

commands = typer.Typer()
Id = Annotated[str, typer.Argument(help="Id of a calibration.")]


@commands.command()
def calibrate(
    source: Annotated[Path, typer.Argument(help="Benign images: a folder or zip with one folder per class.")],
    url: Url = DEFAULT_URL,
    api_key: Key = None,
    alpha: Annotated[float | None, typer.Option(help="Share of benign images that may be rejected.")] = None,
    contamination: Annotated[
        float | None, typer.Option(help="Share of the images that may carry a trigger: costs budget.")
    ] = None,
    false_alarms: Annotated[
        bool, typer.Option("--false-alarms", help="Add quarantined images that were marked as false alarms.")
    ] = False,
    as_json: AsJson = False,
) -> None:
    """Send benign images and print what the detectors can do on this model."""
    with told_plainly(), GatewayClient(url, api_key) as gateway:
        with upload_progress(url, api_key) as started:
            report = gateway.calibrate(source, alpha, started, contamination, false_alarms=false_alarms)
        _print(report, as_json)
    accuracy = report["benign_accuracy"]
    powerless = all(part["power_level"] == "none" for part in report["detectors"])
    if powerless or (accuracy is not None and accuracy < 0.5):
        raise typer.Exit(NEWS)


@commands.command()
def report(
    id: Annotated[str | None, typer.Argument(help="Id of a calibration; the active one by default.")] = None,
    out: Annotated[Path | None, typer.Option(help="Write the page with plots there, as HTML.")] = None,
    url: Url = DEFAULT_URL,
    as_json: AsJson = False,
) -> None:
    """Print a calibration's report, or save it as one page with plots."""
    with told_plainly(), GatewayClient(url) as gateway:
        chosen = id or _current(gateway)
        if out is None:
            _print(gateway.calibration(chosen), as_json)
            return
        _write(out, gateway.page(chosen))
    console.print(f"{out}: the report of {chosen}", markup=False)


@commands.command("calibrations")
def list_calibrations(url: Url = DEFAULT_URL, as_json: AsJson = False) -> None:
    """List what was calibrated, the newest first, and what is enforced."""
    with told_plainly(), GatewayClient(url) as gateway:
        history = gateway.calibrations()
    if as_json:
        print(json.dumps(history, indent=2))
    else:
        console.print(calibrations_table(history))


@commands.command()
def export(
    id: Id,
    file: Annotated[Path, typer.Argument(help="Where the calibration goes.")],
    url: Url = DEFAULT_URL,
    api_key: Key = None,
) -> None:
    """Save a calibration as one file, to be imported by another gateway."""
    with told_plainly(), GatewayClient(url, api_key) as gateway:
        _write(file, gateway.export(id))
    console.print(f"{file}: calibration {id}", markup=False)


@commands.command("import")
def import_(
    file: Annotated[Path, typer.Argument(help="A file that `export` made.")],
    activate: Annotated[bool, typer.Option("--activate", help="Enforce it at once.")] = False,
    url: Url = DEFAULT_URL,
    api_key: Key = None,
) -> None:
    """Take over a calibration that another gateway made for the same classifier and settings."""
    with told_plainly(), GatewayClient(url, api_key) as gateway:
        found = gateway.import_(_read(file), activate=activate)
    state = "enforced" if found["active"] else "kept, not enforced"
    console.print(f"calibration {found['id']} is {state}", markup=False)


@commands.command("activate")
def activate_command(id: Id, url: Url = DEFAULT_URL, api_key: Key = None) -> None:
    """Enforce a calibration, a new one or an old one again."""
    with told_plainly(), GatewayClient(url, api_key) as gateway:
        found = gateway.activate(id)
    console.print(f"calibration {found['id']} is enforced", markup=False)


@commands.command("compare")
def compare_command(
    a: Id,
    b: Annotated[str, typer.Argument(help="Id of the one to compare it with.")],
    url: Url = DEFAULT_URL,
    as_json: AsJson = False,
) -> None:
    """Print two calibrations side by side, and what changes from the first to the second."""
    with told_plainly(), GatewayClient(url) as gateway:
        found = gateway.compare(a, b)
    if as_json:
        print(json.dumps(found, indent=2))
    else:
        print_comparison(console, found)


def _print(found: dict[str, Any], as_json: bool) -> None:
    if as_json:
        print(json.dumps(found, indent=2))
    else:
        print_report(console, found)


def _current(gateway: GatewayClient) -> str:
    """The active calibration, else the newest."""
    history = gateway.calibrations()
    ids = [history["active"]] if history["active"] else [each["id"] for each in history["calibrations"]]
    if not ids:
        raise ValueError("nothing was calibrated yet: run `triggerwall calibrate` with benign images first")
    return str(ids[0])


def _read(file: Path) -> bytes:
    try:
        return file.read_bytes()
    except OSError as error:
        raise ValueError(f"{file} cannot be read: {error.strerror}") from error


def _write(file: Path, content: bytes) -> None:
    try:
        file.write_bytes(content)
    except OSError as error:
        raise ValueError(f"{file} cannot be written: {error.strerror}") from error
