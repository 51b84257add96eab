"""How a network takes amplification and scaling, and where it puts triggered images: a report's pictures.

The papers' figures 2: the confidence in the label of the unchanged image, against the number of amplified
BatchNorm layers (IBD-PSC) and against the pixel multiplier (SCALE-UP), of benign and of poisoned images. And
the first two principal components of the last layer's input.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from detectors.base import UnsupportedNetwork
from detectors.ibd_psc import IbdPsc
from lab.judge import Study
from lab.metrics import Floats

__all__ = ["MULTIPLIERS", "Curve", "Features", "amplified", "behaviour_of", "features", "scaled"]

MULTIPLIERS = tuple(range(1, 13))
IMAGES = 300  # of each kind
DIGITS = 4


@dataclass(frozen=True)
class Curve:
    """Confidence of images at each of `at` (n): `mean`, and the quartiles `low` and `high`, all (n,)."""

    at: list[int]
    mean: list[float]
    low: list[float]
    high: list[float]

    @classmethod
    def of(cls, at: Sequence[int], confidence: Floats) -> "Curve":
        """From confidences (N ≥ 1, n)."""
        low, high = np.quantile(confidence, (0.25, 0.75), axis=0).round(DIGITS).tolist()
        return cls(list(at), confidence.mean(0).round(DIGITS).tolist(), low, high)


@dataclass(frozen=True)
class Features:
    """Coordinates (N, 2) of images in one plane, and the labels (N,) that they get; `explained` is the share
    of all variance that the plane shows."""

    explained: float
    benign: list[list[float]]
    benign_labels: list[int]
    poisoned: list[list[float]]


def behaviour_of(study: Study, images: int = IMAGES) -> dict[str, Any]:
    """JSON: `amplification`, `scaling` (each `benign` and, with a backdoor, `poisoned`: the fields of
    `Curve`) and `features` (those of `Features`), from up to `images` of each kind; null where there is no
    such thing: no BatchNorm, no linear layer."""
    kinds = {"benign": study.batches(study.benign[:images])}
    if len(study.poisoned):
        kinds["poisoned"] = study.batches(study.poisoned[:images])
    plane = features(study.classifier.network, kinds["benign"], kinds.get("poisoned", []))
    return {
        "images": images,
        "amplification": _curves(amplified, study, kinds),
        "scaling": _curves(scaled, study, kinds),
        "features": None if plane is None else vars(plane),
    }


def _curves(
    curve: Callable[[Study, list[Tensor]], Curve | None], study: Study, kinds: dict[str, list[Tensor]]
) -> dict[str, Any] | None:
    found = {kind: curve(study, batches) for kind, batches in kinds.items()}
    return None if None in found.values() else {kind: vars(each) for kind, each in found.items()}


@torch.inference_mode()
def amplified(study: Study, batches: list[Tensor]) -> Curve | None:
    """Against the number of amplified layers, 0 to all; None without BatchNorm."""
    try:
        # One for both kinds of images: it checks its networks before it measures.
        detector = study.once("amplified", lambda: IbdPsc(study.classifier, batches[0][:2]))
    except UnsupportedNetwork:
        return None
    layers = len(detector.order)
    plain = torch.cat([study.classifier.logits(part).softmax(1).amax(1) for part in batches])
    rest = torch.cat([detector.measure(part)[:, :layers] for part in batches])
    confidence = torch.cat([plain[:, None], rest], 1)
    return Curve.of(range(layers + 1), confidence.double().cpu().numpy())


@torch.inference_mode()
def scaled(study: Study, batches: list[Tensor]) -> Curve | None:
    """Against the factor that all pixels are multiplied by, clipped to [0, 1]."""
    rows = []
    for part in batches:
        labels = study.classifier.logits(part).argmax(1, keepdim=True)
        answers = [study.classifier.logits((part * factor).clamp(0, 1)) for factor in MULTIPLIERS]
        rows.append(torch.cat([each.softmax(1).gather(1, labels) for each in answers], 1))
    return Curve.of(MULTIPLIERS, torch.cat(rows).double().cpu().numpy())


@torch.inference_mode()
def features(network: nn.Module, benign: list[Tensor], poisoned: list[Tensor]) -> Features | None:
    """The input of the linear layer that runs last, in the plane of most variance of all these images; None
    where no linear layer runs."""
    seen: list[Tensor] = []  # the input of each linear layer, in the order they run
    layers = [module for module in network.modules() if isinstance(module, nn.Linear)]
    handles = [each.register_forward_pre_hook(lambda _, given: seen.append(given[0])) for each in layers]
    found, labels = [], []
    try:
        for part in [*benign, *poisoned]:
            seen.clear()
            labels.append(network(part).argmax(1))
            if not seen:
                return None
            found.append(seen[-1].flatten(1).double().cpu())
    finally:
        for handle in handles:
            handle.remove()
    places, explained = plane_of(torch.cat(found))
    count = sum(map(len, benign))
    rounded = places.numpy().round(DIGITS).tolist()
    given = torch.cat(labels).cpu().tolist()
    return Features(round(explained, DIGITS), rounded[:count], given[:count], rounded[count:])


def plane_of(rows: Tensor) -> tuple[Tensor, float]:
    """Principal components: `rows` (N, F) in the two directions of most variance (N, 2), and its share."""
    centred = rows - rows.mean(0)
    u, s, _ = torch.linalg.svd(centred, full_matrices=False)
    places = torch.zeros(len(rows), 2, dtype=rows.dtype)
    kept = min(2, len(s))
    places[:, :kept] = u[:, :kept] * s[:kept]
    total = s.square().sum()
    return places, float(s[:2].square().sum() / total) if total > 0 else 1.0
