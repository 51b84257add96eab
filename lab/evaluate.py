"""How good a classifier is, and how well its backdoor works."""

from dataclasses import dataclass

import torch
from torch import Tensor, nn

from lab.attacks import Attack
from lab.data import ImageSet

__all__ = ["Outcome", "evaluate", "predict"]


@dataclass(frozen=True)
class Outcome:
    """BA: share of clean test images classified correctly. ASR: share of the attack's victims (all images
    of other classes, for most attacks) that get the target label; None for a model without a backdoor."""

    benign_accuracy: float
    attack_success_rate: float | None

    def __str__(self) -> str:
        if self.attack_success_rate is None:
            return f"BA {self.benign_accuracy:.4f}  no backdoor"
        return f"BA {self.benign_accuracy:.4f}  ASR {self.attack_success_rate:.4f}"


@torch.inference_mode()
def predict(network: nn.Module, images: Tensor, batch_size: int = 500) -> Tensor:
    """Labels (N,) int64, on the CPU, that `network` (pixels in [0, 1] → logits) gives `images`
    (N, C, H, W) uint8. Leaves the network in eval mode."""
    network.eval()
    device = next(network.parameters()).device
    labels = [network(part.to(device).float() / 255).argmax(1).cpu() for part in images.split(batch_size)]
    return torch.cat(labels)


def evaluate(network: nn.Module, test: ImageSet, attack: Attack | None, target: int) -> Outcome:
    """BA and ASR of `network` (pixels in [0, 1] → logits) on `test`, which needs victims
    of the attack where one is given."""
    accuracy = (predict(network, test.images) == test.labels).double().mean().item()
    if attack is None:
        return Outcome(accuracy, None)
    victims = test.images[attack.victims(test.labels, target)]
    success = (predict(network, attack.apply(victims)) == target).double().mean().item()
    return Outcome(accuracy, success)
