"""How well each detector tells one attack's images from benign ones, on one model."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from rich.table import Table
from torch import Tensor

from detectors.base import BasePass, Detector, Scorer
from detectors.calibration import BenignSample, calibrate
from detectors.deepsweep import deepsweep
from detectors.frequency import Frequency
from detectors.ibd_psc import IbdPsc
from detectors.profile import Profile
from detectors.references import keep_references, references_wanted, with_references
from detectors.scale_up import ScaleUp
from detectors.shrinkpad import shrinkpad
from detectors.strip import Strip
from detectors.teco import TeCo
from lab.data import ImageSet, LabError
from lab.metrics import Floats, auroc, target_auroc
from lab.record import load_attack, read_settings
from models.torch_module import TorchClassifier, load_bundle

__all__ = ["DETECTORS", "Figures", "Study", "figures_table", "judge", "open_detectors", "open_study"]

BUDGETS = (0.01, 0.05)
BATCH = 250

DETECTORS: dict[str, Callable[[TorchClassifier, Tensor], Detector]] = {
    "profile": lambda classifier, _: Profile(classifier),
    "psc": lambda classifier, example: IbdPsc(classifier, example),
    "spc": lambda classifier, _: ScaleUp(classifier),
    "nspc": lambda classifier, _: ScaleUp(classifier, normalised=True),
    "strip": lambda classifier, _: Strip(classifier),
    "teco": lambda classifier, _: TeCo(classifier),
    "shrinkpad": lambda classifier, _: shrinkpad(classifier),
    "deepsweep": lambda classifier, _: deepsweep(classifier),
    "frequency": lambda classifier, _: Frequency(classifier),
}
"""How each is built around a classifier; those that trace it are given an example batch."""


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
    that its attack would attack; judge the detectors `names`, or all. Raises `LabError`."""
    settings = read_settings(bundle)
    if settings.attack is None:
        raise LabError(f"{bundle} was trained without an attack: there is nothing to tell apart")
    attack = load_attack(bundle)
    if len(test) <= calibration:
        raise LabError(f"{len(test)} test images are too few to calibrate on {calibration}")
    classifier = load_bundle(bundle, device)
    order = torch.randperm(len(test), generator=torch.Generator().manual_seed(seed))
    judged = test.take(order[calibration : calibration + images])
    victims = judged.images[attack.victims(judged.labels, settings.target)]
    if not len(victims):
        raise LabError(f"{len(judged)} judged images have none that {attack.name} attacks: take more")
    return Study(
        classifier,
        open_detectors(classifier, test.images[:2].to(device).float() / 255, names),
        test.take(order[:calibration]),
        judged.images,
        attack.apply(victims),
        attack.name,
        settings.target,
    )


def open_detectors(
    classifier: TorchClassifier, example: Tensor, names: Sequence[str]
) -> tuple[Detector, ...]:
    """The detectors `names`, or all; `example` (B, C, H, W) in [0, 1]. Raises `LabError`."""
    unknown = [name for name in names if name not in DETECTORS]
    if unknown:
        raise LabError(f"unknown detector {unknown[0]!r}; known: {', '.join(DETECTORS)}")
    return tuple(DETECTORS[name](classifier, example) for name in names or DETECTORS)


@torch.inference_mode()
def judge(detector: Detector, study: Study) -> Figures:
    """Calibrate `detector` on the calibration images, and score and judge the others.

    The first calibration images are set aside where the detector compares images with benign ones.
    """
    aside = references_wanted([detector])
    if aside:
        first = study.batches(study.calibration.images[:aside])[0]
        detector = with_references(detector, keep_references([detector], first))
    images, labels = study.calibration.images[aside:], study.calibration.labels[aside:]
    evidence = torch.cat([detector.measure(b).cpu() for b in study.batches(images)])
    sample = BenignSample(
        study.predictions(images),
        labels.numpy(),
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
