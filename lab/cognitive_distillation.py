"""CD: how little of an image does its prediction need? (Huang et al., ICLR 2023, arXiv:2301.10908, section 3)

    min_m ‖f(x) − f(x ⊙ m + (1 − m) · δ)‖₁ / K + α ‖m‖₁ + β TV(m),   δ ∈ [0, 1]^C drawn at each step

A trigger suffices by itself, so the mask m of a triggered image is small; ‖m‖₁ is the score, small is
suspicious. f are logits. α, β, Adam with 100 steps of 0.1 and the mask as (1 + tanh)/2 are the values of the
authors' published settings; the usual decay rates of Adam and one δ for all images of a step are ours: so an
image's score does not depend on its neighbours in the batch. TV is the mean squared difference of neighbours.
"""

from dataclasses import dataclass

import torch
from torch import Tensor, nn

__all__ = ["CognitiveDistillation"]


@dataclass(frozen=True)
class CognitiveDistillation:
    """The settings; deterministic from `seed`."""

    alpha: float = 0.01
    beta: float = 1.0
    steps: int = 100
    learning_rate: float = 0.1
    seed: int = 0

    def scores(self, network: nn.Module, images: Tensor) -> Tensor:
        """(B,) in [−1, 0]: −‖m‖₁ / (H · W), so that large is suspicious, as for the detectors."""
        return -self.masks(network, images).mean((1, 2, 3))

    def masks(self, network: nn.Module, images: Tensor) -> Tensor:
        """m (B, 1, H, W) in [0, 1] of `images` (B, C, H, W), float32 in [0, 1], on the network's device.

        `network` gives logits (B, K); it is in eval mode with its weights frozen.
        """
        generator = torch.Generator().manual_seed(self.seed)
        with torch.no_grad():
            wanted = network(images).float()
        free = torch.ones_like(images[:, :1]).requires_grad_()
        optimiser = torch.optim.Adam([free], self.learning_rate)
        for _ in range(self.steps):
            mask = (1 + free.tanh()) / 2
            delta = torch.rand(images.shape[1], 1, 1, generator=generator).to(images.device)
            logits = network(images * mask + (1 - mask) * delta).float()
            kept = (logits - wanted).abs().mean(1)
            # Summed: no image's gradient, and so no image's mask, depends on how many others there are.
            loss = (kept + self.alpha * mask.sum((1, 2, 3)) + self.beta * variation(mask)).sum()
            (free.grad,) = torch.autograd.grad(loss, [free])
            optimiser.step()
        return ((1 + free.tanh()) / 2).detach()


def variation(mask: Tensor) -> Tensor:
    """(B,): squared differences of neighbours, vertical and horizontal, of (B, 1, H, W), over H · W."""
    down = mask.diff(dim=2).square().sum((1, 2, 3))
    across = mask.diff(dim=3).square().sum((1, 2, 3))
    return (down + across) / mask[0].numel()
