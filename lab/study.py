"""Train and judge every bundle of a study, skipping what is done and resuming what was interrupted."""

import json
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Literal

import torch

from detectors.base import DetectorError
from lab.data import ImageSet, LabError
from lab.figures import figures_of, write_scores
from lab.judge import DETECTORS, open_study, score_images
from lab.matrix import Evaluation, Matrix, expand
from lab.record import RECORD_FILE, read_record, recorded_settings
from lab.run import CHECKPOINT_FILE
from lab.settings import TrainSettings
from lab.train import check, train
from models.errors import ModelError

__all__ = ["RESULTS_FILE", "SCORES_FILE", "Images", "Job", "plan", "run_job"]

RESULTS_FILE = "evaluation.json"
SCORES_FILE = "scores.npz"
EXPECTED = (LabError, ModelError, DetectorError, OSError)
State = Literal["new", "interrupted", "trained", "done"]


@dataclass(frozen=True)
class Images:
    """What all bundles of a study are trained and tested on; `provenance` goes into their records."""

    training: ImageSet
    test: ImageSet
    provenance: dict[str, Any]


@dataclass(frozen=True)
class Job:
    """One bundle to be. `trained`: only its evaluation is missing."""

    settings: TrainSettings
    folder: Path
    state: State
    steps: int  # that are left, at most


def plan(matrix: Matrix, images: Images) -> list[Job]:
    """Every bundle of the study and how far it is.

    Raises `LabError`, before any training, for the first that could not be trained on these images, or
    whose folder holds something else.
    """
    jobs = []
    fingerprint = images.training.fingerprint()
    for settings in expand(matrix):
        folder = matrix.out / settings.name
        try:
            check(settings, images.training, images.test)
            _check_evaluation(matrix.evaluate, images.test)
            state = _state(settings, folder, fingerprint, matrix.evaluate)
        except LabError as error:
            raise LabError(f"run {settings.name}: {error}") from error
        left = state in ("new", "interrupted")
        steps = len(images.training) // settings.batch_size * settings.epochs if left else 0
        jobs.append(Job(settings, folder, state, steps))
    return jobs


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
    judged = evaluation is None or (folder / RESULTS_FILE).exists()
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
            say(f"{job.settings.name}: {outcome}")
        if evaluation is not None and job.state != "done":
            _evaluate(job.folder, images.test, evaluation, device)
            say(f"{job.settings.name}: judged")
    except EXPECTED as error:
        say(f"{job.settings.name} failed: {error}")
        return False
    return True


def _evaluate(bundle: Path, test: ImageSet, options: Evaluation, device: torch.device) -> None:
    study = open_study(
        bundle, test, options.calibration, options.images, options.seed, device, options.detectors, True
    )
    scored = [score_images(detector, study) for detector in study.detectors]
    if options.scores:
        write_scores(bundle / SCORES_FILE, scored)
    figures = [asdict(figures_of(each)) for each in scored]
    partial = bundle / f"{RESULTS_FILE}.partial"
    partial.write_text(json.dumps(figures, indent=2) + "\n", encoding="utf-8")
    partial.replace(bundle / RESULTS_FILE)
