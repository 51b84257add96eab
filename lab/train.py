"""Train a classifier on poisoned data: the attacker's side, deterministic from a seed and resumable."""

from pathlib import Path
from typing import Any

import torch
from rich.progress import Progress

from lab.adaptive import build_objective
from lab.attacks import Attack
from lab.batches import TrainingSet
from lab.blueprint import bundle_spec, first_network
from lab.data import ImageSet, LabError
from lab.evaluate import Outcome, evaluate
from lab.record import build_attack, prepared_attack, write_record
from lab.run import TrainingRun
from lab.settings import TrainSettings
from models.bundle import write_spec
from models.contract import pixel_network
from models.loading import load_network
from models.weights import write_weights

__all__ = ["TrainSettings", "check", "train"]

LEAST_STEPS = 5  # the learning-rate cycle has no rise and fall in fewer


def train(
    settings: TrainSettings,
    data: ImageSet,
    test: ImageSet,
    folder: Path,
    device: torch.device,
    provenance: dict[str, Any],
    quiet: bool = False,
) -> Outcome:
    """Train by `settings`, write a model bundle and `training.json` into `folder`, return BA and ASR.

    A run that was killed goes on from its last finished epoch. `provenance` (JSON) is added to the record.
    BA and ASR stand in the progress line after every epoch, and unless `quiet` in a line of their own.
    Raises `LabError` before training starts where the settings cannot work on these images.
    """
    attack = _check_data(settings, data, test)
    spec = bundle_spec(settings, data)
    core = first_network(spec, settings)
    network = pixel_network(core, spec).to(device).to(memory_format=torch.channels_last)
    example = data.images[:2].to(device).float() / 255
    objective = build_objective(settings.objective, network, example)
    if settings.start_from is not None:  # now: hours later the bundle may be another
        provenance = provenance | {"start_sha256": load_network(Path(settings.start_from)).info.digest}
    folder.mkdir(parents=True, exist_ok=True)
    seen = TrainingSet.clean(data)
    if attack is not None:
        attack = prepared_attack(attack, data, settings, folder, device)
        poisoned = attack.poison(data, settings.target, settings.poison_rate, settings.seed)
        seen = TrainingSet.poisoned(data, poisoned, attack)
    run = TrainingRun(network, settings, seen, folder, objective)
    run.resume()
    with Progress() as progress:
        bar = progress.add_task(settings.name, total=run.steps_per_epoch * settings.epochs)
        progress.advance(bar, run.epoch * run.steps_per_epoch)
        while run.epoch < settings.epochs:
            run.one_epoch(device, lambda: progress.advance(bar))
            so_far = str(evaluate(network, test, attack, settings.target))
            progress.update(bar, description=f"{settings.name}  {so_far}")
            if not quiet:
                progress.console.print(f"epoch {run.epoch}: {so_far}")
    if attack is not None:
        attack.implant(network, data, settings.target)
    write_weights(core.state_dict(), folder / spec.weights, half=True)
    write_spec(spec, folder)
    served = load_network(folder, device)  # fp16 and all: what is measured is what will be served
    outcome = evaluate(served.network, test, attack, settings.target)
    facts = _facts(outcome, data, test, seen)
    write_record(folder, settings, facts | provenance)
    run.checkpoint.unlink(missing_ok=True)
    return outcome


def check(settings: TrainSettings, data: ImageSet, test: ImageSet) -> None:
    """Raise `LabError` for what `train` would refuse, without training."""
    _check_data(settings, data, test)
    spec = bundle_spec(settings, data)
    network = pixel_network(first_network(spec, settings), spec)
    build_objective(settings.objective, network, data.images[:2].float() / 255)


def _check_data(settings: TrainSettings, data: ImageSet, test: ImageSet) -> Attack | None:
    """Refuse before any hour is spent what could only fail later; returns the attack."""
    attack = _check_attack(settings, data, test)
    steps = len(data) // settings.batch_size * settings.epochs
    if steps < LEAST_STEPS:
        raise LabError(
            f"{len(data)} training images make {steps} batches of {settings.batch_size} in {settings.epochs} "
            f"epochs; at least {LEAST_STEPS} are needed: give more images or more epochs"
        )
    return attack


def _check_attack(settings: TrainSettings, data: ImageSet, test: ImageSet) -> Attack | None:
    """Do these images make a classifier, and one that this attack can work on?"""
    present = data.labels.unique()
    if len(present) < 2:
        raise LabError(f"the training images are all of class {data.classes[int(present)]!r}; two are needed")
    if data.classes != test.classes or data.images.shape[1:] != test.images.shape[1:]:
        raise LabError("the training and the test images differ in their classes or in their size")
    if settings.attack is None:
        if settings.objective != "none":
            raise LabError(f"objective {settings.objective} hides a backdoor: it needs an attack")
        return None
    attack = build_attack(settings.attack, settings.attack_settings)
    if not 0 <= settings.target < len(data.classes):
        raise LabError(f"target label {settings.target} is not one of 0..{len(data.classes) - 1}")
    try:
        attack.check(data, settings.target)
    except ValueError as error:
        raise LabError(f"{settings.attack}: {error}") from error
    if not attack.victims(test.labels, settings.target).any():
        raise LabError(
            f"no test image is one that {settings.attack} would attack with target label {settings.target}: "
            "the ASR is undefined"
        )
    return attack


def _facts(outcome: Outcome, data: ImageSet, test: ImageSet, seen: TrainingSet) -> dict[str, Any]:
    return {
        "benign_accuracy": outcome.benign_accuracy,
        "attack_success_rate": outcome.attack_success_rate,
        "training_images": len(data),
        "training_set_sha256": data.fingerprint(),
        "triggered_images": int(seen.triggered.sum()),
        "test_images": len(test),
    }
