"""A network under test, with the images it is fed and the thresholds that let a verdict be certain early."""

from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np
import torch
from torch import Tensor, nn

from bench.recipes import OMEGA, Recipe, default_k
from detectors.amplification import Amplified, batch_norm_order
from detectors.calibration import DetectorCalibration, group_by_label
from detectors.early_exit import mean_of
from detectors.engine import flops
from detectors.ibd_psc import PAPER_THRESHOLD, confidence_in
from detectors.stages import cheapest_stages

__all__ = ["Rule", "Subject", "batch_of", "learn", "make_subject"]


@dataclass(frozen=True)
class Rule:
    """When a verdict is certain: `thresholds` (K,) float64 by predicted label, and the order of stages."""

    thresholds: Tensor
    stages: list[list[int]]


@dataclass
class Subject:
    """`pools`: images (N, C, H, W) float32 in [0, 1] by kind of traffic; `benign` is always there (noise
    for a network with random weights). `rule` is None where early exit would mean nothing; `engine` is the
    exact one, where it was built already."""

    recipe: Recipe
    network: nn.Module
    device: torch.device
    order: list[str]
    counts: tuple[int, ...]
    pools: dict[str, Tensor]
    omega: float = OMEGA
    rule: Rule | None = None
    engine: Amplified | None = None
    notes: list[str] = field(default_factory=list)

    @property
    def k(self) -> int:
        return self.counts[0]

    @property
    def n(self) -> int:
        return len(self.counts)


def make_subject(
    recipe: Recipe,
    device: torch.device,
    pools: dict[str, Tensor],
    *,
    k: int | None = None,
    n: int = 5,
    omega: float = OMEGA,
) -> Subject:
    """Build the network of `recipe`; `k` None is the documented default, n is at most its layers."""
    network = recipe.build(device)
    order = batch_norm_order(network, pools["benign"][:2])
    n = min(n, len(order))
    first = default_k(len(order), n) if k is None else max(1, min(k, len(order) - n + 1))
    return Subject(recipe, network, device, order, tuple(range(first, first + n)), pools, omega)


def learn(engine: Amplified, images: Tensor, classes: int, alpha: float | None) -> Rule:
    """Thresholds and the cheapest order of stages from benign `images` (m, C, H, W).

    `alpha` None is the paper's T = 0.9; else thresholds by predicted class at that false-positive budget.
    """
    parts, labels = [], []
    for batch in images.split(32):
        logits, forks = engine.base(batch)
        labels.append(logits.argmax(1))
        parts.append(confidence_in(engine.variants(forks, range(len(engine.counts))), labels[-1]))
    values, predicted = torch.cat(parts).double().cpu(), torch.cat(labels).cpu().numpy()
    limits = np.full(classes, PAPER_THRESHOLD)
    if alpha is not None:
        scores = mean_of(values).numpy()
        groups = group_by_label(scores, predicted, alpha)
        limits = DetectorCalibration("psc", {}, {}, alpha, groups, np.sort(scores)).thresholds(classes)
    counted = flops(engine, images[:1])
    costs = np.array(counted["variants"]) / counted["base"]
    stages = cheapest_stages(values.numpy(), limits[predicted], costs)
    return Rule(torch.tensor(limits, dtype=torch.float64, device=images.device), stages)


def batch_of(pool: Tensor, size: int, number: int) -> Tensor:
    """Batch `number` of `size` images, going round `pool` as often as it takes."""
    rows: Sequence[int] = [(number * size + row) % len(pool) for row in range(size)]
    return pool[torch.tensor(rows, device=pool.device)]
