"""What every detector measures of many images, once: the material of studies that draw from it often."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from rich.console import Console
from rich.progress import track

from detectors.base import Detector
from detectors.calibration import BenignSample
from detectors.references import references_wanted
from lab.attacks import Attack
from lab.data import ImageSet, LabError
from models.torch_module import TorchClassifier

__all__ = ["draw", "draw_attacked", "measure", "measure_once"]

BATCH = 250


def draw(images: ImageSet, count: int, seed: int) -> ImageSet:
    """`count` of `images` in random order, or all where there are fewer."""
    order = torch.randperm(len(images), generator=torch.Generator().manual_seed(seed))
    return images.take(order[:count])


def draw_attacked(
    images: ImageSet, benign: int, triggered: int, attack: Attack, target: int, seed: int
) -> tuple[ImageSet, ImageSet]:
    """`benign` of `images`, and those of `triggered` others that the attack would attack, with the trigger on
    and their true labels. Raises `LabError`."""
    if len(images) <= benign:
        raise LabError(f"{len(images)} images are too few: {benign} are benign, and others get the trigger")
    drawn = draw(images, benign + triggered, seed)
    others = drawn.take(torch.arange(benign, len(drawn)))
    others = others.take(attack.victims(others.labels, target))
    stamped = ImageSet(attack.apply(others.images), others.labels, others.classes)
    return drawn.take(torch.arange(benign)), stamped


@torch.inference_mode()
def measure(
    classifier: TorchClassifier, detectors: Sequence[Detector], images: ImageSet, title: str
) -> BenignSample:
    """Predictions, true labels and every detector's evidence of `images` (benign or not), with a bar.

    Raises `LabError` for detectors that compare images with benign ones: every split would have others.
    """
    if references_wanted(detectors):
        raise LabError("detectors that compare images with benign ones cannot be measured once for all")
    parts = []
    batches = list(images.images.split(BATCH))
    for batch in track(batches, title, console=Console(stderr=True), transient=True):
        pixels = batch.to(classifier.device).float() / 255
        predicted = classifier.logits(pixels).argmax(1).cpu().numpy()
        evidence = {each.name: each.measure(pixels).double().cpu().numpy() for each in detectors}
        parts.append(BenignSample(predicted, None, evidence))
    return BenignSample.join(parts, images.labels.numpy())


def measure_once(
    file: Path | None,
    classifier: TorchClassifier,
    detectors: Sequence[Detector],
    images: ImageSet,
    title: str,
) -> BenignSample:
    """`measure`, kept in `file` (.npz) where one is named and taken from there the next time.

    Raises `LabError` where the file is of another model, other images or other detectors.
    """
    identity = (
        f"{classifier.info.digest} {images.fingerprint()} {[(d.name, d.settings()) for d in detectors]}"
    )
    if file is None or not file.exists():
        sample = measure(classifier, detectors, images, title)
        if file is not None:
            kept: dict[str, Any] = {f"evidence {name}": each for name, each in sample.evidence.items()}
            kept |= {"identity": np.array(identity), "predicted": sample.predicted, "labels": sample.labels}
            np.savez(file, **kept)
        return sample
    with np.load(file, allow_pickle=False) as found:
        if str(found["identity"]) != identity:
            raise LabError(f"{file} was measured with another model, other images or other detectors")
        evidence = {
            name.removeprefix("evidence "): found[name] for name in found if name.startswith("evidence ")
        }
        return BenignSample(found["predicted"], found["labels"], evidence)
