"""Training-set purification: a model scores the images it was trained on, and the suspicious ones go.

IBD-PSC (Hou et al., ICML 2024, section 5.7 and appendix Q), with any detector that judges images one
by one, and with CD and MSPC. The poisoned set is remade from the bundle's record: it is known which images
are triggered.

Thresholds come from benign images that the model was *not* trained on, as the detectors have them anyway.
Training images are no draw from these, the model has seen them: a budget is a rule here, not a promise.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from rich.console import Console
from rich.progress import track
from rich.table import Table
from torch import Tensor, nn

from detectors.base import CalibrationError, Detector
from detectors.calibration import calibrate
from detectors.conformal import conformal_threshold, images_needed
from detectors.references import references_wanted
from lab.attacks import Attack
from lab.cognitive_distillation import CognitiveDistillation
from lab.data import ImageSet, LabError
from lab.evaluate import Outcome, evaluate
from lab.judge import open_detectors
from lab.metrics import Floats, auroc
from lab.mspc import Mspc
from lab.pools import measure
from lab.record import load_attack, read_record, read_settings
from lab.tabular import slim_table
from lab.train import train
from models.loading import load_network
from models.torch_module import TorchClassifier

__all__ = [
    "METHODS",
    "Figures",
    "Scored",
    "Suspects",
    "check_methods",
    "figures",
    "figures_table",
    "remake",
    "retrain",
    "score",
]

CD, MSPC = "cd", "mspc"
METHODS = ("psc", "spc", "profile", CD, MSPC)
LEARNT = (CD, MSPC)  # they optimise masks; the others are detectors
BATCH = 250
GAMMA = 1.0  # CD's T is μ − γσ of benign mask norms; the γ is ours


@dataclass(frozen=True)
class Suspects:
    """A training set of N images as the model was trained on it; `triggered` and `cover` (N,) bool as
    `lab.attacks.Poisoned` has them."""

    data: ImageSet
    triggered: np.ndarray
    cover: np.ndarray
    attack: Attack
    target: int


@dataclass(frozen=True)
class Scored:
    """`scores` (N,) of the suspects, large is suspicious; `budget` and `fixed` (N,): the limit of each image
    at the budget and at the method's own T."""

    method: str
    scores: Floats
    budget: Floats
    fixed: Floats

    def removed(self, by_fixed: bool) -> np.ndarray:
        """(N,) bool. A score that is not a number is suspicious: it must clear nobody."""
        return ~(self.scores <= (self.fixed if by_fixed else self.budget))


@dataclass(frozen=True)
class Figures:
    """TPR over the triggered images, FPR over those that are neither triggered nor cover; both at the budget
    and at T. Of the rule that cleaned: how many images were `kept`, and how many `triggered_left` of them.
    `outcome` is of the model trained on what was kept."""

    method: str
    auroc: float
    tpr: tuple[float, float]
    fpr: tuple[float, float]
    cover_removed: float | None
    kept: int
    triggered_left: int
    outcome: Outcome | None = None


def remake(bundle: Path, clean: ImageSet) -> Suspects:
    """What `bundle` was trained on, made again from the `clean` training images, in the order they had then:
    the record tells other images, not another order (a folder's for a zip's), and the draw is by position.

    Raises `LabError` where these are not the ones it was trained on, and where none carries a trigger.
    """
    record, settings, attack = read_record(bundle), read_settings(bundle), load_attack(bundle)
    if record.get("training_set_sha256") != clean.fingerprint():
        raise LabError(
            f"{bundle} was trained on other images than these {len(clean)}: name the --data, --channels and "
            f"--exclude of its training ({record.get('training_images', '?')} images of "
            f"{record.get('data', 'an unnamed source')})"
        )
    poisoned = attack.poison(clean, settings.target, settings.poison_rate, settings.seed)
    if not len(poisoned.triggered):
        raise LabError(f"{bundle}: its attack put the trigger on no training image, so there is none to find")
    masks = [np.zeros(len(clean), dtype=np.bool_) for _ in range(2)]
    for mask, positions in zip(masks, (poisoned.triggered, poisoned.cover), strict=True):
        mask[positions.numpy()] = True
    return Suspects(poisoned.data, masks[0], masks[1], attack, settings.target)


def check_methods(methods: Sequence[str], classifier: TorchClassifier, suspects: ImageSet) -> None:
    """Raise `LabError` for what `score` would refuse, before an hour is spent on another method."""
    names = [method for method in methods if method not in LEARNT]
    example = suspects.images[:2].to(classifier.device).float() / 255
    for detector in open_detectors(classifier, example, names) if names else ():
        if references_wanted([detector]):
            raise LabError(
                f"{detector.name} compares images with benign ones; purify takes methods that look at one "
                "image at a time"
            )


def score(
    method: str, classifier: TorchClassifier, suspects: ImageSet, calibration: ImageSet, budget: float
) -> Scored:
    """Score the `suspects` by one of `METHODS` or any detector of `lab.judge` that needs no references.

    `calibration` are benign images that `classifier` was not trained on. Raises `LabError`, and
    `CalibrationError` where they are too few for `budget` in (0, 1).
    """
    if method in LEARNT:
        return _by_masks(method, classifier, suspects, calibration, budget)
    example = suspects.images[:2].to(classifier.device).float() / 255
    (detector,) = open_detectors(classifier, example, [method])
    return _by_detector(detector, classifier, suspects, calibration, budget)


def _by_detector(
    detector: Detector, classifier: TorchClassifier, suspects: ImageSet, calibration: ImageSet, budget: float
) -> Scored:
    benign = measure(classifier, [detector], calibration, f"{detector.name}: benign images")
    found = measure(classifier, [detector], suspects, f"{detector.name}: training images")
    part = calibrate(detector, benign, budget)
    return Scored(
        detector.name,
        detector.score(found.evidence[detector.name], found.predicted, part.fit),
        part.thresholds(classifier.num_classes)[found.predicted],
        detector.fixed_thresholds(part.fit)[found.predicted],
    )


def _by_masks(
    method: str, classifier: TorchClassifier, suspects: ImageSet, calibration: ImageSet, budget: float
) -> Scored:
    if len(calibration) < images_needed(budget):
        raise CalibrationError(
            f"{len(calibration)} benign images cannot support a budget of {budget:g}: "
            f"{images_needed(budget)} are needed"
        )
    scorer = CognitiveDistillation().scores
    if method == MSPC:
        mspc = Mspc()
        scorer = partial(mspc.scores, mask=mspc.learn_mask(classifier.network, suspects.images))
    benign = _scored_by(scorer, classifier, calibration, f"{method}: benign images")
    scores = _scored_by(scorer, classifier, suspects, f"{method}: training images")
    fixed = 0.0 if method == MSPC else benign.mean() + GAMMA * benign.std()
    limit = conformal_threshold(np.sort(benign), budget)
    return Scored(method, scores, np.full(len(suspects), limit), np.full(len(suspects), fixed))


def _scored_by(
    scorer: Callable[[nn.Module, Tensor], Tensor], classifier: TorchClassifier, images: ImageSet, title: str
) -> Floats:
    batches = track(list(images.images.split(BATCH)), title, console=Console(stderr=True), transient=True)
    parts = [scorer(classifier.network, b.to(classifier.device).float() / 255).cpu() for b in batches]
    return torch.cat(parts).double().numpy()


def figures(suspects: Suspects, scored: Scored, by_fixed: bool, outcome: Outcome | None = None) -> Figures:
    """How well `scored` tells the triggered images; cleaned by T where `by_fixed`, else by the budget."""
    benign = ~(suspects.triggered | suspects.cover)
    rules = [scored.removed(fixed) for fixed in (False, True)]
    removed = rules[by_fixed]
    return Figures(
        scored.method,
        auroc(scored.scores[benign], scored.scores[suspects.triggered]),
        (float(rules[0][suspects.triggered].mean()), float(rules[1][suspects.triggered].mean())),
        (float(rules[0][benign].mean()), float(rules[1][benign].mean())),
        float(removed[suspects.cover].mean()) if suspects.cover.any() else None,
        int((~removed).sum()),
        int((suspects.triggered & ~removed).sum()),
        outcome,
    )


def retrain(
    bundle: Path,
    suspects: Suspects,
    removed: np.ndarray,
    test: ImageSet,
    folder: Path,
    device: torch.device,
    provenance: dict[str, Any],
) -> Outcome:
    """Train on what was kept, with the bundle's own settings but no attacker, into the bundle `folder`.

    BA and ASR on `test`, with the trigger of `bundle`. What an attack does to images at each step of training
    (PhysicalBA's transformations) is not done again: what was kept is trained on as it lies there. Raises
    `LabError` where too little was kept to train on.
    """
    settings = read_settings(bundle)
    changes: dict[str, Any] = {
        "name": f"{settings.name}-cleaned", "attack": None, "attack_settings": {}, "objective": "none",
    }  # fmt: skip
    kept = suspects.data.take(torch.from_numpy(~removed))
    train(settings.model_copy(update=changes), kept, test, folder, device, provenance, quiet=True)
    network = load_network(folder, device).network
    return evaluate(network, test, suspects.attack, suspects.target)


def figures_table(before: Outcome, suspects: Suspects, budget: float, rows: list[Figures]) -> Table:
    """One line per method."""
    title = (
        f"{suspects.attack.name}, target {suspects.target}: {int(suspects.triggered.sum())} of "
        f"{len(suspects.data)} training images triggered; trained on all of them: {before}"
    )
    headings = (
        "method",
        "AUROC",
        f"TPR / FPR at {100 * budget:g} %",
        "at T",
        "kept",
        "triggered left",
        "retrained",
    )
    table = slim_table(title, *headings)
    for row in rows:
        rates = [f"{tpr:.3f} / {fpr:.3f}" for tpr, fpr in zip(row.tpr, row.fpr, strict=True)]
        outcome = "—" if row.outcome is None else str(row.outcome)
        table.add_row(row.method, f"{row.auroc:.3f}", *rates, str(row.kept), str(row.triggered_left), outcome)
    return table
