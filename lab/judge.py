"""How well each detector tells one attack's images from benign ones, on one model."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from time import perf_counter

import numpy as np
import torch
from rich.table import Table
from torch import Tensor

from detectors.base import BasePass, Detector, Scorer
from detectors.behaviour import Costed
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
from lab.figures import BUDGETS, LAST, Figures, Kind, Scored, figures_of
from lab.metrics import Floats
from lab.record import load_attack, read_settings
from models.loading import load_network
from models.torch_module import TorchClassifier

__all__ = [
    "BUDGETS",
    "DETECTORS",
    "Figures",
    "Study",
    "figures_table",
    "judge",
    "open_detectors",
    "open_study",
    "score_images",
]

BATCH = 250
COUNTED = 500  # images of each kind on which a detector counts its own forward passes

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
    """One model under attack: images as (N, C, H, W) uint8, none of them in two sets.

    Of a model without a backdoor, `attack` is None, `poisoned` has no images and `target` means nothing.
    """

    classifier: TorchClassifier
    detectors: tuple[Detector, ...]
    calibration: ImageSet
    benign: Tensor
    poisoned: Tensor
    attack: str | None
    target: int

    def batches(self, images: Tensor) -> list[Tensor]:
        """Float batches in [0, 1] on the classifier's device."""
        return [part.to(self.classifier.device).float() / 255 for part in images.split(BATCH)]

    def predictions(self, images: Tensor) -> np.ndarray:
        logits = [self.classifier.logits(part) for part in self.batches(images)]
        return torch.cat(logits).argmax(1).cpu().numpy()


def open_study(
    bundle: Path,
    test: ImageSet,
    calibration: int,
    images: int,
    seed: int,
    device: torch.device,
    names: Sequence[str] = (),
    benign_models: bool = False,
) -> Study:
    """Split `test` into calibration and judged images, and put the bundle's own trigger on the judged ones
    that its attack would attack; judge the detectors `names`, or all. Raises `LabError`, also for a bundle
    without a backdoor unless `benign_models` are allowed."""
    settings = read_settings(bundle)
    if settings.attack is None and not benign_models:
        raise LabError(f"{bundle} was trained without an attack: there is nothing to tell apart")
    if len(test) <= calibration:
        raise LabError(f"{len(test)} test images are too few to calibrate on {calibration}")
    classifier = load_network(bundle, device)
    order = torch.randperm(len(test), generator=torch.Generator().manual_seed(seed))
    judged = test.take(order[calibration : calibration + images])
    return Study(
        classifier,
        open_detectors(classifier, test.images[:2].to(device).float() / 255, names),
        test.take(order[:calibration]),
        judged.images,
        judged.images[:0] if settings.attack is None else _triggered(bundle, judged, settings.target),
        settings.attack,
        settings.target,
    )


def _triggered(bundle: Path, judged: ImageSet, target: int) -> Tensor:
    """Those of `judged` that the bundle's attack would attack, with its trigger; at least one."""
    attack = load_attack(bundle)
    victims = judged.images[attack.victims(judged.labels, target)]
    if not len(victims):
        raise LabError(f"{len(judged)} judged images have none that {attack.name} attacks: take more")
    return attack.apply(victims)


def open_detectors(
    classifier: TorchClassifier, example: Tensor, names: Sequence[str]
) -> tuple[Detector, ...]:
    """The detectors `names`, or all; `example` (B, C, H, W) in [0, 1]. Raises `LabError`."""
    unknown = [name for name in names if name not in DETECTORS]
    if unknown:
        raise LabError(f"unknown detector {unknown[0]!r}; known: {', '.join(DETECTORS)}")
    return tuple(DETECTORS[name](classifier, example) for name in names or DETECTORS)


def judge(detector: Detector, study: Study) -> Figures:
    """Calibrate `detector` on the calibration images, and score and judge the others."""
    return figures_of(score_images(detector, study))


@torch.inference_mode()
def score_images(detector: Detector, study: Study) -> Scored:
    """Calibrate `detector`, and score the benign and the poisoned images with and without early exit.

    The first calibration images are set aside where the detector compares images with benign ones.
    """
    aside = references_wanted([detector])
    if aside:
        first = study.batches(study.calibration.images[:aside])[0]
        detector = with_references(detector, keep_references([detector], first))
    images, labels = study.calibration.images[aside:], study.calibration.labels[aside:]
    evidence = {detector.name: _evidence(detector, study, images)}
    sample = BenignSample(study.predictions(images), labels.numpy(), evidence)
    parts = {alpha: calibrate(detector, sample, alpha) for alpha in BUDGETS}
    last = parts[BUDGETS[-1]]
    limits = {str(alpha): part.thresholds(study.classifier.num_classes) for alpha, part in parts.items()}
    limits["fixed"] = detector.fixed_thresholds(last.fit)
    scorer = detector.scorer(last.fit, last.stages)

    def scored(images: Tensor) -> Kind:
        kind = _both_ways(scorer, study, images, limits[LAST])
        if not isinstance(detector, Costed):
            return kind
        # A term may cost more or less than a forward pass: the detector knows, and a few images tell.
        counted, some = _evidence(detector, study, images[:COUNTED]), kind.predicted[:COUNTED]
        cost = detector.cost(counted, some, last.fit, limits[LAST][some], last.stages)
        return replace(kind, passes=cost.expected)

    backdoored = study.attack is not None
    return Scored(
        detector.name,
        study.target if backdoored else None,
        limits,
        scored(study.benign),
        scored(study.poisoned) if backdoored else None,
    )


def _evidence(detector: Detector, study: Study, images: Tensor) -> Floats:
    return torch.cat([detector.measure(b).cpu() for b in study.batches(images)]).double().numpy()


def _both_ways(scorer: Scorer, study: Study, images: Tensor, limits: Floats) -> Kind:
    """Exact scores of `images` (N ≥ 1), and what early exit at `limits` (K,) takes and does otherwise."""
    full, labels, unequal, total, evaluated, seconds = [], [], 0, 0, 0, 0.0
    thresholds = torch.from_numpy(limits).to(study.classifier.device)
    for batch in study.batches(images):
        first = _base(scorer, study, batch)
        exact = scorer.score(first).values.cpu()
        started = perf_counter()
        second = _base(scorer, study, batch)
        limit = thresholds[second.labels]
        early = scorer.score(second, limit).values.cpu()  # waits for the device
        seconds += perf_counter() - started
        unequal += int(((exact > limit.cpu()) != (early > limit.cpu())).sum())
        total += int(first.evaluated().sum())
        evaluated += int(second.evaluated().sum())
        full.append(exact.numpy())
        labels.append(second.labels.cpu().numpy())
    terms = evaluated / len(images)
    counts = total > 0 or not scorer.stages  # else it has stages, yet does not work in terms
    return Kind(
        np.concatenate(full),
        np.concatenate(labels),
        terms,
        terms if counts else None,
        seconds / len(images),
        unequal,
    )


def _base(scorer: Scorer, study: Study, images: Tensor) -> BasePass:
    return scorer.base(images) or BasePass.of(images, study.classifier.logits(images))


def figures_table(study: Study, figures: Sequence[Figures]) -> Table:
    """One line per detector."""
    attack = f"{study.attack}, target {study.target}" if study.attack else "no attack"
    table = Table(
        title=f"{study.classifier.info.name}: {attack}; calibrated on "
        f"{len(study.calibration)}, judged {len(study.benign)} benign and {len(study.poisoned)} triggered"
    )
    headings = ("detector", "AUROC", "of target class", "TPR / FPR at 1 %", "at 5 %", "at the paper's T")
    for heading in (*headings, "passes, benign / triggered", "early ≠ full"):
        table.add_column(heading)
    limits = (*map(str, BUDGETS), "fixed")
    for each in figures:
        table.add_row(
            each.detector,
            _told(each.auroc),
            _told(each.target_auroc),
            *[f"{_told(each.tpr.get(name))} / {each.fpr[name]:.3f}" for name in limits],
            " / ".join(_told(passes, 2) for passes in each.passes),
            f"{each.unequal} of {each.judged}",
        )
    return table


def _told(value: float | None, digits: int = 3) -> str:
    return "—" if value is None else f"{value:.{digits}f}"
