"""Train and judge every bundle of a study, skipping what is done and resuming what was interrupted."""

import shutil
from collections.abc import Callable
from dataclasses import dataclass
from glob import glob
from pathlib import Path
from typing import Any, Literal

import torch

from detectors.base import DetectorError
from lab.data import ImageSet, LabError
from lab.judge import DETECTORS
from lab.judging import RESULTS_FILE, SCORES_FILE, judge_bundle, missing
from lab.matrix import Evaluation, Matrix, expand
from lab.record import RECORD_FILE, load_attack, read_record, read_settings, recorded_settings
from lab.run import CHECKPOINT_FILE
from lab.settings import TrainSettings
from lab.train import check, train
from models.bundle import read_spec
from models.errors import ModelError

__all__ = ["RESULTS_FILE", "SCORES_FILE", "Images", "Job", "plan", "run_job"]

# RuntimeError is torch's for nearly everything; the other bundles of an unattended study go on.
EXPECTED = (LabError, ModelError, DetectorError, OSError, RuntimeError)
State = Literal["new", "interrupted", "trained", "done"]


@dataclass(frozen=True)
class Images:
    """What all bundles of a study are trained and tested on; `provenance` goes into their records."""

    training: ImageSet
    test: ImageSet
    provenance: dict[str, Any]


@dataclass(frozen=True)
class Job:
    """One bundle, to be trained into `folder` or, where it is elsewhere, judged there. `trained`: only
    judging is left."""

    name: str
    settings: TrainSettings
    bundle: Path
    folder: Path
    state: State
    steps: int  # that are left, at most


def plan(matrix: Matrix, images: Images) -> list[Job]:
    """Every bundle of the study and how far it is.

    Raises `LabError`, before any training, for the first that could not be trained or judged on these
    images, or whose folder holds something else.
    """
    _check_evaluation(matrix.evaluate, images.test)
    jobs = [_trainable(settings, matrix, images) for settings in expand(matrix)]
    jobs += [_ready(bundle, matrix, images.test) for bundle in _found(matrix.bundles)]
    names = [job.name for job in jobs]
    twice = next((name for name in names if names.count(name) > 1), None)
    if twice is not None:
        raise LabError(f"two bundles are called {twice}: their results would overwrite each other")
    return jobs


def _trainable(settings: TrainSettings, matrix: Matrix, images: Images) -> Job:
    folder = matrix.out / settings.name
    try:
        check(settings, images.training, images.test)
        state = _state(settings, folder, images.training.fingerprint(), matrix.evaluate)
    except LabError as error:
        raise LabError(f"run {settings.name}: {error}") from error
    left = state in ("new", "interrupted")
    steps = len(images.training) // settings.batch_size * settings.epochs if left else 0
    return Job(settings.name, settings, folder, folder, state, steps)


def _found(patterns: tuple[str, ...]) -> list[Path]:
    """The folders that `patterns` name, each with a training record; unfinished ones of a pattern are left
    out. Raises `LabError` for a pattern without any."""
    found: list[Path] = []
    for pattern in patterns:
        folders = [Path(each) for each in sorted(glob(pattern))]
        bundles = [each for each in folders if (each / RECORD_FILE).exists()]
        if not bundles:
            raise LabError(f"bundles: {pattern} names no folder with a {RECORD_FILE} in it")
        found += bundles
    return list(dict.fromkeys(found))


def _ready(bundle: Path, matrix: Matrix, test: ImageSet) -> Job:
    """A bundle that was trained elsewhere."""
    assert matrix.evaluate is not None  # `Matrix` asks for it where there are bundles
    name = bundle.resolve().name
    try:
        settings, spec = read_settings(bundle), read_spec(bundle)
        wanted, given = (spec.input.channels, *spec.input.size), tuple(test.images.shape[1:])
        if wanted != given:
            raise LabError(f"takes images of shape {wanted}, and the study's are {given}")
        if spec.labels is not None and len(spec.labels) != len(test.classes):
            raise LabError(f"tells {len(spec.labels)} classes, and the study has {len(test.classes)}")
        if settings.attack is not None:
            load_attack(bundle)
    except (LabError, ModelError) as error:
        raise LabError(f"bundle {bundle}: {error}") from error
    folder = matrix.out / name
    left = missing(folder, bundle, matrix.evaluate)
    return Job(name, settings, bundle, folder, "trained" if left else "done", 0)


def _check_evaluation(options: Evaluation | None, test: ImageSet) -> None:
    if options is None:
        return
    unknown = [name for name in options.detectors if name not in DETECTORS]
    if unknown:
        raise LabError(f"unknown detector {unknown[0]!r}; known: {', '.join(DETECTORS)}")
    if len(test) <= options.calibration:
        raise LabError(f"{len(test)} test images are too few to calibrate on {options.calibration}")


def _state(settings: TrainSettings, folder: Path, fingerprint: str, evaluation: Evaluation | None) -> State:
    if not (folder / RECORD_FILE).exists():
        return "interrupted" if (folder / CHECKPOINT_FILE).exists() else "new"
    record, wanted = read_record(folder), recorded_settings(settings)
    other = sorted(key for key, value in wanted.items() if record["settings"].get(key, value) != value)
    if other:
        raise LabError(f"{folder} has a bundle with another {', '.join(other)}: remove it or name this run")
    if record.get("training_set_sha256", fingerprint) != fingerprint:
        raise LabError(f"{folder} has a bundle of other images: remove it or choose another `out`")
    judged = evaluation is None or not missing(folder, folder, evaluation)
    return "done" if judged else "trained"


def run_job(
    job: Job,
    images: Images,
    evaluation: Evaluation | None,
    device: torch.device,
    say: Callable[[str], object],
) -> bool:
    """Do what is left of `job`; `say` gets a line for each thing done. False where it failed."""
    try:
        if job.state in ("new", "interrupted"):
            outcome = train(
                job.settings, images.training, images.test, job.folder, device, images.provenance, quiet=True
            )
            say(f"{job.name}: {outcome}")
        if evaluation is not None and job.state != "done":
            job.folder.mkdir(parents=True, exist_ok=True)
            if job.folder != job.bundle:  # the report reads from it how the bundle was made
                shutil.copyfile(job.bundle / RECORD_FILE, job.folder / RECORD_FILE)
            judge_bundle(job.bundle, job.folder, images.test, evaluation, device)
            say(f"{job.name}: judged")
    except EXPECTED as error:
        say(f"{job.name} failed: {error}")
        return False
    return True
