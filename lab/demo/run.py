"""The demo from start to end: start, calibrate, send, judge."""

import time
from pathlib import Path
from typing import Annotated, Any

import httpx
import typer
from rich.console import Console
from rich.status import Status

from lab.data import ImageSet, LabError
from lab.demo.gateway import classify, running_gateway
from lab.demo.images import DemoImages, as_png, as_zip, demo_images
from lab.demo.sheet import Row, contact_sheet
from lab.demo.tables import detector_table, share, verdict_table

__all__ = ["demo"]

PASS_AT_LEAST = 0.95
CALIBRATION, BENIGN, TRIGGERED = 2000, 500, 500
TILES = 8
console = Console(highlight=False)


def demo(
    bundle: Annotated[Path, typer.Option(help="A bundle that `triggerwall lab train` made.")] = Path(
        "models/demo"
    ),
    sheet: Annotated[Path, typer.Option(help="Where the contact sheet goes.")] = Path("var/demo.png"),
) -> None:
    """Watch a gateway stop real triggered images in front of a backdoored digit reader."""
    started = time.monotonic()
    try:
        images = demo_images(bundle, CALIBRATION, BENIGN, TRIGGERED)
        with console.status("starting a gateway") as status, running_gateway(bundle) as http:
            did_its_job = _watch(http, images, sheet, status)
    except (LabError, httpx.HTTPError, OSError) as error:
        console.print(str(error), style="red", markup=False)
        raise typer.Exit(2) from None
    console.print(f"{time.monotonic() - started:.0f} s")
    if not did_its_job:
        console.print(f"[red]The firewall failed: it must get at least {PASS_AT_LEAST:.0%} of both right.")
        raise typer.Exit(1)


def _watch(http: httpx.Client, images: DemoImages, sheet: Path, status: Status) -> bool:
    status.update(f"calibrating on {len(images.calibration)} benign digits")
    report = _calibrate(http, images)
    console.print(
        f"[bold]{report['model']['name']}[/] reads digits, and its backdoor turns any digit that carries "
        f"the trigger into a {images.target}.\nCalibrated on {report['images']} benign digits; budget: "
        f"{report['alpha']:.0%} of benign images may be rejected, by all detectors together."
    )
    status.update(f"sending {len(images.benign)} benign and {len(images.triggered)} triggered digits")
    good, bad = [[as_png(i) for i in s.images] for s in (images.benign, images.triggered)]
    console.print(detector_table(report, classify(http, good, full=True), classify(http, bad, full=True)))
    benign, triggered = classify(http, good), classify(http, bad)
    console.print(verdict_table(benign, triggered))
    contact_sheet(_rows(images, benign, triggered), sheet)
    console.print(f"The same in pictures: {sheet}")
    return min(share(benign, "accepted"), share(triggered, "rejected")) >= PASS_AT_LEAST


def _calibrate(http: httpx.Client, images: DemoImages) -> dict[str, Any]:
    archive = ("digits.zip", as_zip(images.calibration), "application/zip")
    answer = http.post("/calibrate", files={"archive": archive})
    if answer.is_error:
        raise LabError(f"the gateway answered {answer.status_code} to /calibrate: {answer.text}")
    report: dict[str, Any] = answer.json()
    return report


def _rows(images: DemoImages, benign: list[dict[str, Any]], triggered: list[dict[str, Any]]) -> list[Row]:
    """Benign digits, triggered ones, and whatever the firewall got wrong."""
    mistakes = [(images.benign, n, r) for n, r in enumerate(benign) if r["verdict"] == "rejected"]
    mistakes += [(images.triggered, n, r) for n, r in enumerate(triggered) if r["verdict"] == "accepted"]
    shown = mistakes[:TILES]
    rows: list[Row] = [
        _row("Benign digits", images.benign, benign),
        _row("Digits with the trigger, lower right", images.triggered, triggered),
    ]
    if shown:
        pictures = [data.images[n] for data, n, _ in shown]
        truths = [data.classes[int(data.labels[n])] for data, n, _ in shown]
        rows.append((f"Mistakes: {len(mistakes)} in all", pictures, [r for _, _, r in shown], truths))
    return rows


def _row(heading: str, data: ImageSet, results: list[dict[str, Any]]) -> Row:
    truths = [data.classes[label] for label in data.labels[:TILES].tolist()]
    return heading, list(data.images[:TILES]), results[:TILES], truths
