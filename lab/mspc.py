"""MSPC: does the prediction survive scaling of the part that matters? (Pal et al., ICLR 2024,
arXiv:2403.10717)

ℓ(x, m) = (1/|S|) Σ_{n ∈ S} (+1 where argmax F(x) = argmax F(x_n), else −1)
x_n = clip(n · m ⊙ (x − τ), 0, 1)

One mask m (H, W) for the whole set keeps the pixels where a trigger lies; the shift τ keeps bright images
from turning white at small n. Sets and mask take turns: w marks the images with ℓ > 0, and m minimises

    (1/N) Σ w_i (1/|S|) Σ_n KL(F(x_i) ‖ F(x_{i,n})) + λ ‖m‖₁

An image is suspicious where ℓ > 0: neither benign images nor a threshold are needed. S = 2..12, λ = 0.01, SGD
with 0.1, momentum 0.9 and weight decay, a mask of ones clipped to [0, 1] after each step and a w without
mask to begin with are the values of the authors' published settings; τ is 0.1, theirs for CIFAR-10.

Where this is not the original: they run 4 rounds of 10 epochs over all images in batches of 1000. Here the
mask is learnt from `sample` of them, in rounds of 2 epochs (which work well too, they say) and smaller
batches, so that the steps are about as many as with 2 epochs of theirs.
"""

from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional as F

__all__ = ["Mspc"]


@dataclass(frozen=True)
class Mspc:
    """The settings; deterministic from `seed`, which draws the sample."""

    scales: tuple[float, ...] = tuple(map(float, range(2, 13)))
    shift: float = 0.1
    sparsity: float = 0.01
    learning_rate: float = 0.1
    momentum: float = 0.9
    weight_decay: float = 5e-4
    rounds: int = 4
    epochs: int = 2
    batch: int = 50
    sample: int = 2000
    seed: int = 0

    def learn_mask(self, network: nn.Module, images: Tensor) -> Tensor:
        """m (H, W) in [0, 1] for `images` (N, C, H, W) uint8, on the network's device.

        `network` takes pixels in [0, 1] and gives logits; it is in eval mode with its weights frozen.
        """
        device = next(network.parameters()).device
        order = torch.randperm(len(images), generator=torch.Generator().manual_seed(self.seed))
        chosen = images[order[: self.sample]]
        batches = [part.to(device).float() / 255 for part in chosen.split(self.batch)]
        mask = torch.ones(images.shape[-2:], device=device, requires_grad=True)
        optimiser = torch.optim.SGD(
            [mask], self.learning_rate, momentum=self.momentum, weight_decay=self.weight_decay
        )
        weights = [self.scores(network, batch, torch.ones_like(mask)) > 0 for batch in batches]
        for _ in range(self.rounds):
            for _ in range(self.epochs):
                for batch, weight in zip(batches, weights, strict=True):
                    self._step(network, batch, weight.float(), mask, optimiser)
            weights = [self.scores(network, batch, mask.detach()) > 0 for batch in batches]
        return mask.detach()

    @torch.no_grad()
    def scores(self, network: nn.Module, images: Tensor, mask: Tensor) -> Tensor:
        """ℓ (B,) in [−1, 1] of `images` (B, C, H, W), float32 in [0, 1], under `mask` (H, W); large is
        suspicious. An answer that is not a number counts as agreement: it must clear nobody."""
        labels = network(images).argmax(1)
        logits = [network(self._scaled(images, mask, scale)) for scale in self.scales]
        kept = [(each.argmax(1) == labels) | each.isnan().any(1) for each in logits]
        return 2 * torch.stack(kept).float().mean(0) - 1

    def _scaled(self, images: Tensor, mask: Tensor, scale: float) -> Tensor:
        return (scale * mask * (images - self.shift)).clamp(0, 1)

    def _step(
        self, network: nn.Module, images: Tensor, weight: Tensor, mask: Tensor, optimiser: torch.optim.SGD
    ) -> None:
        """One step of the mask on a batch, of which the images with `weight` (B,) 1 count."""
        gradient = self.sparsity * torch.ones_like(mask)  # of λ ‖m‖₁, as m ≥ 0
        chosen = images[weight > 0]
        if len(chosen):
            wanted = network(chosen).softmax(1).detach()
            for scale in self.scales:  # one by one: all at once would hold |S| graphs
                gradient += self._gradient(network, chosen, wanted, mask, scale) / len(images)
        mask.grad = gradient
        optimiser.step()
        with torch.no_grad():
            mask.clamp_(0, 1)

    def _gradient(
        self, network: nn.Module, images: Tensor, wanted: Tensor, mask: Tensor, scale: float
    ) -> Tensor:
        """Of Σ KL(wanted ‖ F(x_n)) / |S| with respect to `mask`."""
        answers = network(self._scaled(images, mask, scale)).log_softmax(1)
        loss = F.kl_div(answers, wanted, reduction="sum") / len(self.scales)
        (gradient,) = torch.autograd.grad(loss, [mask])
        return gradient
