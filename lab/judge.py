"""How well each detector tells one attack's images from benign ones, on one model."""

import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from rich.table import Table
from torch import Tensor

from detectors.base import BasePass, Detector, Scorer
from detectors.calibration import BenignSample, calibrate
from detectors.ibd_psc import IbdPsc
from detectors.profile import Profile
from detectors.scale_up import ScaleUp
from lab.attacks import ATTACKS, Attack
from lab.data import ImageSet, LabError
from lab.metrics import Floats, auroc, target_auroc
from models.torch_module import TorchClassifier, load_bundle

__all__ = ["Figures", "Study", "figures_table", "judge", "open_attack", "open_detectors", "open_study"]

BUDGETS = (0.01, 0.05)
BATCH = 250


@dataclass(frozen=True)
class Study:
    """One model under attack: images as (N, C, H, W) uint8, none of them in two sets."""

    classifier: TorchClassifier
    detectors: tuple[Detector, ...]
    calibration: ImageSet
    benign: Tensor
    poisoned: Tensor
    attack: str
    target: int

    def batches(self, images: Tensor) -> list[Tensor]:
        """Float batches in [0, 1] on the classifier's device."""
        return [part.to(self.classifier.device).float() / 255 for part in images.split(BATCH)]

    def predictions(self, images: Tensor) -> np.ndarray:
        logits = [self.classifier.logits(part) for part in self.batches(images)]
        return torch.cat(logits).argmax(1).cpu().numpy()


@dataclass(frozen=True)
class Figures:
    """`tpr` and `fpr` by threshold: the budgets as text ("0.01") and "fixed", the paper's T, on all
    poisoned images. `terms` and `unequal` are of the 5 % budget's early exit: evaluations per benign and
    per poisoned image, and verdicts that differ from the full score's (it must be 0)."""

    detector: str
    auroc: float
    target_auroc: float | None
    tpr: dict[str, float]
    fpr: dict[str, float]
    terms: tuple[float, float]
    judged: int
    unequal: int


def open_study(
    bundle: Path,
    test: ImageSet,
    calibration: int,
    images: int,
    seed: int,
    device: torch.device,
    names: Sequence[str] = (),
) -> Study:
    """Split `test` into calibration and judged images, and put the bundle's own trigger on the judged ones
    that are not of the target class; judge the detectors `names`, or all. Raises `LabError`."""
    attack, target = open_attack(bundle)
    if len(test) <= calibration:
        raise LabError(f"{len(test)} test images are too few to calibrate on {calibration}")
    classifier = load_bundle(bundle, device)
    order = torch.randperm(len(test), generator=torch.Generator().manual_seed(seed))
    judged = test.take(order[calibration : calibration + images])
    others = judged.images[judged.labels != target]
    return Study(
        classifier,
        open_detectors(classifier, test.images[:2].to(device).float() / 255, names),
        test.take(order[:calibration]),
        judged.images,
        attack.apply(others),
        attack.name,
        target,
    )


def open_attack(bundle: Path) -> tuple[Attack, int]:
    """The attack and the target label that `bundle` was trained with. Raises `LabError`."""
    record = bundle / "training.json"
    if not record.exists():
        raise LabError(f"{bundle} has no training.json: the attack is not known")
    settings = json.loads(record.read_text(encoding="utf-8"))["settings"]
    if settings["attack"] is None:
        raise LabError(f"{bundle} was trained without an attack: there is nothing to tell apart")
    return ATTACKS[settings["attack"]](), settings["target"]


def open_detectors(
    classifier: TorchClassifier, example: Tensor, names: Sequence[str]
) -> tuple[Detector, ...]:
    build: dict[str, Callable[[], Detector]] = {
        "profile": lambda: Profile(classifier),
        "psc": lambda: IbdPsc(classifier, example),
        "spc": lambda: ScaleUp(classifier),
        "nspc": lambda: ScaleUp(classifier, normalised=True),
    }
    unknown = [name for name in names if name not in build]
    if unknown:
        raise LabError(f"unknown detector {unknown[0]!r}; known: {', '.join(build)}")
    return tuple(build[name]() for name in names or build)


@torch.inference_mode()
def judge(detector: Detector, study: Study) -> Figures:
    """Calibrate `detector` on the calibration images, and score and judge the others."""
    evidence = torch.cat([detector.measure(b).cpu() for b in study.batches(study.calibration.images)])
    sample = BenignSample(
        study.predictions(study.calibration.images),
        study.calibration.labels.numpy(),
        {detector.name: evidence.double().numpy()},
    )
    parts = {alpha: calibrate(detector, sample, alpha) for alpha in BUDGETS}
    classes = study.classifier.num_classes
    last = parts[BUDGETS[-1]]
    scorer = detector.scorer(last.fit, last.stages)
    limits = {str(alpha): part.thresholds(classes) for alpha, part in parts.items()}
    limits["fixed"] = detector.fixed_thresholds(last.fit)
    predicted = study.predictions(study.benign), study.predictions(study.poisoned)
    scores, unequal, terms = [], 0, []
    for images in (study.benign, study.poisoned):
        full, early, evaluated = _both_ways(scorer, study, images, limits[str(BUDGETS[-1])])
        scores.append(full)
        unequal += early
        terms.append(evaluated)
    rates = [
        {name: float((scores[kind] > limit[predicted[kind]]).mean()) for name, limit in limits.items()}
        for kind in (0, 1)
    ]
    return Figures(
        detector.name,
        auroc(*scores),
        target_auroc(scores[0], predicted[0], scores[1], study.target),
        rates[1],
        rates[0],
        (terms[0], terms[1]),
        len(study.benign) + len(study.poisoned),
        unequal,
    )


def _both_ways(scorer: Scorer, study: Study, images: Tensor, limits: Floats) -> tuple[Floats, int, float]:
    """Full scores (N,), how many early verdicts differ from theirs, and mean terms evaluated early."""
    full, unequal, evaluated = [], 0, 0
    thresholds = torch.from_numpy(limits).to(study.classifier.device)
    for batch in study.batches(images):
        first, second = _base(scorer, study, batch), _base(scorer, study, batch)
        exact = scorer.score(first).values
        limit = thresholds[second.labels]
        early = scorer.score(second, limit).values
        unequal += int(((exact > limit) != (early > limit)).sum())
        evaluated += int(second.evaluated().sum())
        full.append(exact.cpu().numpy())
    return np.concatenate(full), unequal, evaluated / len(images)


def _base(scorer: Scorer, study: Study, images: Tensor) -> BasePass:
    return scorer.base(images) or BasePass.of(images, study.classifier.logits(images))


def figures_table(study: Study, figures: Sequence[Figures]) -> Table:
    """One line per detector."""
    table = Table(
        title=f"{study.classifier.info.name}: {study.attack}, target {study.target}; calibrated on "
        f"{len(study.calibration)}, judged {len(study.benign)} benign and {len(study.poisoned)} triggered"
    )
    headings = ("detector", "AUROC", "of target class", "TPR / FPR at 1 %", "at 5 %", "at the paper's T")
    for heading in (*headings, "terms, benign / triggered", "early ≠ full"):
        table.add_column(heading)
    for each in figures:
        table.add_row(
            each.detector,
            f"{each.auroc:.3f}",
            "—" if each.target_auroc is None else f"{each.target_auroc:.3f}",
            *[f"{each.tpr[name]:.3f} / {each.fpr[name]:.3f}" for name in (*map(str, BUDGETS), "fixed")],
            f"{each.terms[0]:.2f} / {each.terms[1]:.2f}",
            f"{each.unequal} of {each.judged}",
        )
    return table
