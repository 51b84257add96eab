"""What a study writes about a bundle: one file per question, each made once and never half."""

import json
from dataclasses import asdict
from io import BytesIO
from pathlib import Path
from typing import Any

import torch

from lab.ablation import ablate
from lab.behaviour import behaviour_of
from lab.data import ImageSet
from lab.figures import Scored, figures_of, write_scores
from lab.gallery import draw_gallery
from lab.judge import Study, open_study
from lab.matrix import Evaluation
from lab.record import load_attack, read_settings
from lab.scoring import calibrated, scored_by

__all__ = [
    "ABLATION_FILE",
    "BEHAVIOUR_FILE",
    "NOISE_FILE",
    "RESULTS_FILE",
    "SCORES_FILE",
    "TRIGGERS_FILE",
    "judge_bundle",
    "missing",
]

RESULTS_FILE = "evaluation.json"
SCORES_FILE = "scores.npz"
NOISE_FILE = "evaluation-noise.json"
BEHAVIOUR_FILE = "behaviour.json"
TRIGGERS_FILE = "triggers.png"
ABLATION_FILE = "ablation.json"
COLUMNS = 3  # of the trigger gallery
FACTOR = 5.0  # by which it enhances differences


def missing(folder: Path, bundle: Path, options: Evaluation) -> list[str]:
    """Which of the files that `options` want of `bundle` are not in `folder` yet."""
    backdoored = read_settings(bundle).attack is not None
    wanted = {
        RESULTS_FILE: True,
        NOISE_FILE: options.noise > 0,
        BEHAVIOUR_FILE: options.pictures,
        TRIGGERS_FILE: options.pictures and backdoored,
        ABLATION_FILE: options.ablate and backdoored,
    }
    return [name for name, want in wanted.items() if want and not (folder / name).exists()]


def judge_bundle(
    bundle: Path, folder: Path, test: ImageSet, options: Evaluation, device: torch.device
) -> None:
    """Write what `missing` names into `folder`; the cheap things first, so that a report has them early."""
    left = missing(folder, bundle, options)
    study = open_study(
        bundle, test, options.calibration, options.images, options.seed, device, options.detectors, True
    )
    if TRIGGERS_FILE in left:
        _replace(folder / TRIGGERS_FILE, _gallery(bundle, test))
    if BEHAVIOUR_FILE in left:
        _replace(folder / BEHAVIOUR_FILE, _json(behaviour_of(study)))
    if RESULTS_FILE in left or NOISE_FILE in left:
        _judge(study, folder, options, left)
    if ABLATION_FILE in left:
        _replace(folder / ABLATION_FILE, _json([asdict(row) for row in ablate(study)]))


def _judge(study: Study, folder: Path, options: Evaluation, left: list[str]) -> None:
    """Calibrates each detector once, for the images as they are and with noise."""
    noisy = study.noisy(options.noise) if NOISE_FILE in left else None
    plain: list[Scored] = []
    noised: list[Scored] = []
    for detector in study.detectors:
        ready = calibrated(detector, study)
        if RESULTS_FILE in left:
            plain.append(scored_by(ready, study))
        if noisy is not None:
            noised.append(scored_by(ready, noisy))
    if noised:
        rows = [asdict(figures_of(each)) | {"noise": options.noise} for each in noised]
        _replace(folder / NOISE_FILE, _json(rows))
    if plain:
        if options.scores:
            write_scores(folder / SCORES_FILE, plain)
        _replace(folder / RESULTS_FILE, _json([asdict(figures_of(each)) for each in plain]))


def _gallery(bundle: Path, test: ImageSet) -> bytes:
    settings = read_settings(bundle)
    picture = draw_gallery(
        {str(settings.attack): load_attack(bundle)}, test, settings.target, COLUMNS, FACTOR
    )
    buffer = BytesIO()
    picture.save(buffer, "PNG")
    return buffer.getvalue()


def _json(content: Any) -> bytes:
    return (json.dumps(content, indent=1) + "\n").encode()


def _replace(path: Path, content: bytes) -> None:
    """A kill leaves the whole file, or none."""
    partial = path.with_name(f"{path.name}.partial")
    partial.write_bytes(content)
    partial.replace(path)
