"""One model under attack, the detectors that guard it, and which images play which part.

`lab.scoring` judges them.
"""

import contextlib
from collections.abc import Callable, Hashable, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from rich.table import Table
from torch import Tensor

from detectors.base import Detector, UnsupportedNetwork
from detectors.deepsweep import deepsweep
from detectors.engine import build_engine
from detectors.frequency import Frequency
from detectors.ibd_psc import IbdPsc
from detectors.label_profile import LabelProfile
from detectors.packing import PackedNetwork, pack_network
from detectors.profile import Profile
from detectors.scale_up import ScaleUp
from detectors.shrinkpad import shrinkpad
from detectors.strip import Strip
from detectors.teco import TeCo
from detectors.tracing import Trace
from lab.data import ImageSet, LabError
from lab.figures import BUDGETS, Figures
from lab.record import load_attack, read_settings
from lab.tabular import slim_table
from models.base import Classifier
from models.loading import load_network
from models.torch_module import TorchClassifier

__all__ = [
    "BUDGETS",
    "COMPARED",
    "DETECTORS",
    "Figures",
    "Study",
    "figures_table",
    "open_detectors",
    "open_study",
]

BATCH = 250
COMPARED = 250

DETECTORS: dict[str, Callable[[Classifier, Tensor], Detector]] = {
    "profile": lambda classifier, _: Profile(classifier),
    "label_profile": lambda classifier, _: LabelProfile(classifier),
    "psc": lambda classifier, example: IbdPsc(
        classifier, example, engine=partial(build_engine, traced=_shared_trace(classifier))
    ),
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
    """One model under attack: images as (N, C, H, W) uint8, or float32 in [0, 1]; none of them in two sets.

    Of a model without a backdoor, `attack` is None, `poisoned` has no images and `target` means nothing.
    Early exit is timed, and its verdicts compared with the full scores', on `compared` images of each kind.
    What several detectors ask of the same images is computed once and kept in `known`.
    """

    classifier: TorchClassifier
    detectors: tuple[Detector, ...]
    calibration: ImageSet
    benign: Tensor
    poisoned: Tensor
    attack: str | None
    target: int
    compared: int = COMPARED
    known: dict[Hashable, Any] = field(default_factory=dict, repr=False, compare=False)

    def batches(self, images: Tensor) -> list[Tensor]:
        """Float batches in [0, 1] on the classifier's device."""
        parts = [part.to(self.classifier.device) for part in images.split(BATCH)]
        return [part if part.is_floating_point() else part.float() / 255 for part in parts]

    def once(self, key: Hashable, make: Callable[[], Any]) -> Any:
        """What `make` returned when it was first called for `key`."""
        if key not in self.known:
            self.known[key] = make()
        return self.known[key]

    def logits(self, images: Tensor) -> list[Tensor]:
        """Of every one of `batches`, computed once for the same tensor."""
        # The images are kept beside them: while they live, no other tensor has their id.
        _, logits = self.once(
            ("logits", id(images)),
            lambda: (images, [self.classifier.logits(part) for part in self.batches(images)]),
        )
        found: list[Tensor] = logits
        return found

    def predictions(self, images: Tensor) -> np.ndarray:
        return torch.cat(self.logits(images)).argmax(1).cpu().numpy()

    def noisy(self, level: float, seed: int = 0) -> "Study":
        """The same study with noise on every judged image, benign and poisoned: x + `level` · U[0, 1).

        So does SCALE-UP's published code with `level` 0.02 before it scales; its paper's equations have no
        noise. Nothing is added to the calibration images.
        """
        generator = torch.Generator().manual_seed(seed)

        def noised(images: Tensor) -> Tensor:
            noise = torch.rand(images.shape, generator=generator)
            return (images.float() / 255 + level * noise).clamp(0, 1)

        # `known` stays shared: what was learnt of the calibration images holds, and keys name the images.
        return replace(self, benign=noised(self.benign), poisoned=noised(self.poisoned))


def open_study(
    bundle: Path,
    test: ImageSet,
    calibration: int,
    images: int,
    seed: int,
    device: torch.device,
    names: Sequence[str] = (),
    benign_models: bool = False,
    calibrate_on: ImageSet | None = None,
) -> Study:
    """Split `test` into calibration and judged images, and put the bundle's own trigger on the judged ones
    that its attack would attack; judge the detectors `names`, or all. With `calibrate_on` the calibration
    images come from there, and all of `test` may be judged. Raises `LabError`, also for a bundle without a
    backdoor unless `benign_models` are allowed."""
    settings = read_settings(bundle)
    if settings.attack is None and not benign_models:
        raise LabError(f"{bundle} was trained without an attack: there is nothing to tell apart")
    source = test if calibrate_on is None else calibrate_on
    if len(source) <= calibration:
        raise LabError(f"{len(source)} images are too few to calibrate on {calibration}")
    classifier = load_network(bundle, device)
    _check_images(classifier, test, bundle)
    _pack(classifier, test)
    generator = torch.Generator().manual_seed(seed)
    order = torch.randperm(len(source), generator=generator)
    chosen = order[calibration:] if source is test else torch.randperm(len(test), generator=generator)
    judged = test.take(chosen[:images])
    return Study(
        classifier,
        open_detectors(classifier, test.images[:2].to(device).float() / 255, names),
        source.take(order[:calibration]),
        judged.images,
        judged.images[:0] if settings.attack is None else _triggered(bundle, judged, settings.target),
        settings.attack,
        settings.target,
    )


def _pack(classifier: TorchClassifier, test: ImageSet) -> None:
    """On a CPU, have `classifier` compute with packed weights, as a gateway does: a ResNet-20 then takes less
    than half the time. Where that cannot be it stays as it is."""
    if classifier.device.type == "cpu":
        with contextlib.suppress(UnsupportedNetwork):
            classifier.runner = pack_network(classifier.network, test.images[:2].float() / 255)


def _shared_trace(classifier: Classifier) -> Trace | None:
    """The packed network, for the fork engine to share."""
    runner = classifier.runner if isinstance(classifier, TorchClassifier) else None
    return runner.trace if isinstance(runner, PackedNetwork) else None


def _check_images(classifier: TorchClassifier, test: ImageSet, bundle: Path) -> None:
    """Raise `LabError` for images that are not of the classifier's size, channels or number of classes."""
    wanted = (classifier.info.channels, *classifier.info.size)
    given = tuple(test.images.shape[1:])
    if wanted != given:
        hint = f"give --channels {wanted[0]}" if wanted[1:] == given[1:] else "name the --data of its kind"
        raise LabError(f"{bundle} takes images of shape {wanted}, and these are {given}: {hint}")
    if len(test.classes) != classifier.num_classes:
        raise LabError(
            f"{bundle} tells {classifier.num_classes} classes, and the images have {len(test.classes)}"
        )


def _triggered(bundle: Path, judged: ImageSet, target: int) -> Tensor:
    """Those of `judged` that the bundle's attack would attack, with its trigger; at least one."""
    attack = load_attack(bundle)
    victims = judged.images[attack.victims(judged.labels, target)]
    if not len(victims):
        raise LabError(f"{len(judged)} judged images have none that {attack.name} attacks: take more")
    return attack.apply(victims)


def open_detectors(classifier: Classifier, example: Tensor, names: Sequence[str]) -> tuple[Detector, ...]:
    """The detectors `names`, or all that can guard this classifier; `example` (B, C, H, W) in [0, 1].

    Raises `LabError` for an unknown name, `UnsupportedNetwork` for one that cannot guard it.
    """
    unknown = [name for name in names if name not in DETECTORS]
    if unknown:
        raise LabError(f"unknown detector {unknown[0]!r}; known: {', '.join(DETECTORS)}")
    if names:
        return tuple(DETECTORS[name](classifier, example) for name in names)
    able = []
    for build in DETECTORS.values():
        try:
            able.append(build(classifier, example))
        except UnsupportedNetwork:  # IBD-PSC on a network without BatchNorm
            continue
    return tuple(able)


def figures_table(study: Study, figures: Sequence[Figures]) -> Table:
    """One line per detector."""
    attack = f"{study.attack}, target {study.target}" if study.attack else "no attack"
    title = (
        f"{study.classifier.info.name}: {attack}; calibrated on "
        f"{len(study.calibration)}, judged {len(study.benign)} benign and {len(study.poisoned)} triggered"
    )
    headings = ("AUROC", "of target class", "TPR / FPR at 1 %", "TPR / FPR at 5 %", "TPR / FPR at paper's T")
    table = slim_table(title, "detector", *headings, "passes, benign / triggered", "early ≠ full / all")
    limits = (*map(str, BUDGETS), "fixed")
    for each in figures:
        table.add_row(
            each.detector,
            _told(each.auroc),
            _told(each.target_auroc),
            *[f"{_told(each.tpr.get(name))} / {each.fpr[name]:.3f}" for name in limits],
            " / ".join(_told(passes, 2) for passes in each.passes),
            f"{each.unequal} / {each.compared}",
        )
    return table


def _told(value: float | None, digits: int = 3) -> str:
    return "—" if value is None else f"{value:.{digits}f}"
