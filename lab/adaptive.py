"""Attackers who know the detector and control the training: losses that hide the backdoor from it.

The loss of a step is (1 − w) · cross-entropy + w · objective, with w rising from 0 to
`objective_weight` over the first half of the training. Each objective looks at the network as the
detector will: in eval mode, with its running statistics, which it does not change; gradients flow.

`scaled`   SCALE-UP's adaptive attack (Guo et al., ICLR 2023, section 5.4): triggered images with pixels
           multiplied by the detector's scales get their true labels, so that SPC falls.
`psc1`     against IBD-PSC: triggered images get their true labels under amplified BatchNorm layers.
`psc2`     against IBD-PSC: benign images keep their labels under amplified BatchNorm layers, so that their
           PSC is as high as that of triggered ones.
`profile`  against this project's profile: the log-odds of triggered images under its probes are drawn
           to the mean of those of the batch's benign images of the target class.

Hou et al. (ICML 2024) describe two designs of adaptive attacks on IBD-PSC; `psc1` and `psc2` follow the
idea of each, CE(F_i(x), y), not the text of their losses. Two departures keep the training affordable and
stable: i, the number of amplified layers, is another one each step, in turn, instead of a sum over all;
and amplified logits, which can be thousands of times the plain ones, are scaled down to at most
`LARGEST_LOGIT`, which leaves the prediction as it is.
"""

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from detectors.amplification import batch_norm_order
from detectors.base import DetectorError
from detectors.probes import DEFAULT_PRESET, PRESETS
from detectors.profile import log_odds
from detectors.scale_up import PAPER_SCALES, scaled_copies
from lab.batches import Batch
from lab.data import LabError

__all__ = ["OBJECTIVES", "Objective", "amplified", "as_served", "build_objective"]

OMEGA = 1.5
LARGEST_LOGIT = 20.0
KNOWN = PRESETS[DEFAULT_PRESET].probes  # the attacker reads the manual
LEAST_SPREAD = 1.0  # of log-odds: a smaller one would make a small difference look large

Objective = Callable[[Batch, int], Tensor]
"""(batch on the network's device, number of the step) → a scalar loss; 0 without such images."""


@contextmanager
def as_served(network: nn.Module) -> Iterator[None]:
    """Eval mode meanwhile; afterwards every module is in the mode that it was in."""
    training = [module for module in network.modules() if module.training]
    network.eval()
    try:
        yield
    finally:
        for module in training:
            module.training = True


@contextmanager
def amplified(layers: Sequence[nn.Module], omega: float = OMEGA) -> Iterator[None]:
    """The outputs of `layers` times `omega` meanwhile. In eval mode that is a BatchNorm's γ and β times ω."""

    def multiply(_module: nn.Module, _inputs: Any, output: Tensor) -> Tensor:
        return output * omega

    handles = [layer.register_forward_hook(multiply) for layer in layers]
    try:
        yield
    finally:
        for handle in handles:
            handle.remove()


class Scaled:
    def __init__(self, network: nn.Module) -> None:
        self.network = network

    def __call__(self, batch: Batch, step: int) -> Tensor:
        hit = batch.triggered
        return _loss(self.network, scaled_copies(batch.images[hit], PAPER_SCALES),
                     batch.truth[hit].repeat(len(PAPER_SCALES)))  # fmt: skip


class Amplification:
    """`psc1` and `psc2`: cross-entropy with the true labels, of triggered or of benign images."""

    def __init__(self, network: nn.Module, example: Tensor, triggered: bool) -> None:
        self.network, self.triggered = network, triggered
        with as_served(network):
            order = batch_norm_order(network, example)
        self.layers = [network.get_submodule(name) for name in order]

    def __call__(self, batch: Batch, step: int) -> Tensor:
        chosen = batch.triggered == self.triggered
        count = step % len(self.layers) + 1
        with amplified(self.layers[-count:]):
            return _loss(self.network, batch.images[chosen], batch.truth[chosen])


class Unremarkable:
    """`profile`: the distance of each triggered image's profile from the benign mean, in benign spreads."""

    def __init__(self, network: nn.Module) -> None:
        self.network = network

    def __call__(self, batch: Batch, step: int) -> Tensor:
        if not batch.triggered.any():
            return batch.images.new_zeros(())
        target = batch.labels[batch.triggered][0]
        benign = (batch.labels == target) & ~batch.triggered
        if benign.sum() < 2:
            return batch.images.new_zeros(())
        chosen = benign | batch.triggered
        profiles = self._profiles(batch.images[chosen], target)
        usual = profiles[benign[chosen]].detach()
        spread = usual.std(0).clamp(min=LEAST_SPREAD)
        distance = (profiles[batch.triggered[chosen]] - usual.mean(0)) / spread
        return F.smooth_l1_loss(distance, torch.zeros_like(distance))

    def _profiles(self, images: Tensor, target: Tensor) -> Tensor:
        """(B, 1 + probes): log-odds of the target label, of the image itself and under each probe."""
        with torch.no_grad(), torch.autocast(images.device.type, enabled=False):
            views = torch.cat([images, *(probe.apply(images) for probe in KNOWN)])
        with as_served(self.network):
            logits = self.network(views).float()
        return log_odds(logits, target.expand(len(views))).view(1 + len(KNOWN), -1).T


def _loss(network: nn.Module, images: Tensor, labels: Tensor) -> Tensor:
    """Cross-entropy of the served network, its logits scaled down to at most LARGEST_LOGIT."""
    if len(images) == 0:
        return images.new_zeros(())
    with as_served(network):
        logits = network(images).float()
    largest = logits.detach().abs().amax(1, keepdim=True)
    return F.cross_entropy(logits * (LARGEST_LOGIT / largest).clamp(max=1), labels)


OBJECTIVES: dict[str, Callable[[nn.Module, Tensor], Objective]] = {
    "scaled": lambda network, _: Scaled(network),
    "psc1": lambda network, example: Amplification(network, example, triggered=True),
    "psc2": lambda network, example: Amplification(network, example, triggered=False),
    "profile": lambda network, _: Unremarkable(network),
}


def build_objective(name: str, network: nn.Module, example: Tensor) -> Objective | None:
    """The objective `name` for `network` (pixels in [0, 1] → logits), None for "none"; `example` are two
    images of its shape on its device. Raises `LabError` where it cannot work on this network."""
    if name == "none":
        return None
    try:
        return OBJECTIVES[name](network, example)
    except DetectorError as error:
        raise LabError(f"objective {name}: {error}") from error
