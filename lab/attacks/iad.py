"""IAD, the input-aware dynamic backdoor (Nguyen & Tran, NeurIPS 2020, arXiv:2010.08138)."""

import copy
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import ClassVar, Self

import torch
from rich.progress import track
from torch import Tensor, nn
from torch.nn import functional as F

from lab.attacks.base import Poisoned, draw
from lab.attacks.learnt import Learnt
from lab.attacks.surrogate import endless_batches, surrogate
from lab.attacks.unet import UNet
from lab.data import ImageSet

__all__ = ["Iad"]

BATCH = 96
SMALL = 1e-3  # keeps the diversity loss finite where two triggers are the same


@dataclass(frozen=True)
class Iad(Learnt):
    """Every image gets a trigger of its own; the trigger of another image does nothing.

    One network draws the pattern, another the mask: x' = x (1 − m) + p m. The mask learns to be
    sparse (`density` of the pixels) and diverse; then the pattern learns, diverse too and together with a
    classifier, to bring images to the target, while images under the trigger of another (*cross triggers*)
    keep their label. Departure: in the paper the classifier of that training is the
    victim; here it is a surrogate, and what the victim trains on is a fixed set with triggered images
    and, `cover_ratio` times as many, images under cross triggers with their true labels.
    """

    name: ClassVar[str] = "iad"
    density: float = 0.032
    diversity: float = 1.0
    cover_ratio: float = 1.0
    mask_steps: int = 150
    steps: int = 500

    def prepared(self, data: ImageSet, target: int, seed: int, device: torch.device) -> Self:
        channels = data.images.shape[1]
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            networks = nn.ModuleDict({"mask": UNet(channels, 1), "pattern": UNet(channels, channels)})
        networks = networks.to(device).train()
        batches = _pixels(data, seed, device)
        self._learn_mask(networks, batches)
        networks["mask"].eval().requires_grad_(False)
        self._learn_pattern(networks, surrogate(data, seed, device), batches, target)
        return self.restored(networks.state_dict())

    def apply(self, images: Tensor) -> Tensor:
        return self._stamped(images, images)

    def poison(self, data: ImageSet, target: int, rate: float, seed: int) -> Poisoned:
        """As the base class, and `cover_ratio` times as many other images, or all that are left, with the
        trigger of another image and their own label."""
        generator = torch.Generator().manual_seed(seed)
        chosen, cover = draw(len(data), rate, self.cover_ratio, generator)
        # The trigger of the image some places on: it is another one for every cover, and never its own.
        shift = int(torch.randint(1, len(data), (1,), generator=generator))
        crossed = self._stamped(data.images[cover], data.images[(cover + shift) % len(data)])
        return Poisoned.of(data, target, (chosen, self.apply(data.images[chosen])), (cover, crossed))

    def _learn_mask(self, networks: nn.ModuleDict, batches: Iterator[tuple[Tensor, Tensor]]) -> None:
        optimiser = torch.optim.Adam(networks["mask"].parameters(), lr=0.01)
        for _ in track(range(self.mask_steps), "learning the mask", transient=True):
            images, _ = next(batches)
            mask = _mask(networks["mask"], images)
            sparse = F.relu(mask.mean((1, 2, 3)) - self.density).mean() / self.density
            _step(optimiser, sparse + self.diversity * _sameness(images, mask))

    def _learn_pattern(
        self,
        networks: nn.ModuleDict,
        trained: nn.Module,
        batches: Iterator[tuple[Tensor, Tensor]],
        target: int,
    ) -> None:
        classifier = copy.deepcopy(trained).requires_grad_(True).train()
        learner = torch.optim.Adam(networks["pattern"].parameters(), lr=0.005, betas=(0.5, 0.9))
        optimiser = torch.optim.SGD(classifier.parameters(), lr=0.01, momentum=0.9, weight_decay=5e-4)
        for _ in track(range(self.steps), "learning the pattern", transient=True):
            images, labels = next(batches)
            third = max(1, len(images) // 3)
            pattern, mask = _pattern(networks["pattern"], images), _mask(networks["mask"], images)
            own = _mixed(images, pattern, mask)[:third]
            # The image keeps its label under the trigger of its neighbour in the batch.
            cross = _mixed(images, pattern.roll(1, 0), mask.roll(1, 0))[third : 2 * third]
            wanted = labels.clone()
            wanted[:third] = target
            loss = F.cross_entropy(classifier(torch.cat([own, cross, images[2 * third :]])), wanted)
            optimiser.zero_grad(set_to_none=True)
            _step(learner, loss + self.diversity * _sameness(images, pattern))
            optimiser.step()

    @torch.inference_mode()
    def _stamped(self, images: Tensor, sources: Tensor) -> Tensor:
        """`images` (N, C, H, W) uint8, each under the trigger of the image of `sources` at its place."""
        networks = _restored(self.required(), images)
        parts = [images[:0]]
        for image, source in zip(images.split(250), sources.split(250), strict=True):
            pixels, other = image.float() / 255, source.float() / 255
            mixed = _mixed(pixels, _pattern(networks["pattern"], other), _mask(networks["mask"], other))
            parts.append((mixed * 255).round().clamp(0, 255).to(torch.uint8))
        return torch.cat(parts)


def _restored(tensors: Mapping[str, Tensor], images: Tensor) -> nn.ModuleDict:
    """The mask's and the pattern's network for `images`; `ValueError` where they are for others."""
    channels = tensors["pattern.out.weight"].shape[0]
    if images.shape[1] != channels:
        raise ValueError(f"a trigger for {channels} channels does not fit images of {images.shape[1]}")
    with torch.device("meta"):  # draws no random weights that would be thrown away
        networks = nn.ModuleDict({"mask": UNet(channels, 1), "pattern": UNet(channels, channels)})
    networks.load_state_dict(dict(tensors), assign=True)
    return networks.to(images.device).eval()


def _pixels(data: ImageSet, seed: int, device: torch.device) -> Iterator[tuple[Tensor, Tensor]]:
    batches = endless_batches(data, BATCH, torch.Generator().manual_seed(seed))
    return ((images.to(device).float() / 255, labels.to(device)) for images, labels in batches)


def _pattern(network: nn.Module, images: Tensor) -> Tensor:
    """(B, C, H, W) in [0, 1]."""
    drawn: Tensor = network(images)
    return drawn.sigmoid()


def _mask(network: nn.Module, images: Tensor) -> Tensor:
    """(B, 1, H, W) in [0, 1], nearly 0 or 1 almost everywhere."""
    drawn: Tensor = network(images)
    return torch.sigmoid(10 * drawn)


def _mixed(images: Tensor, pattern: Tensor, mask: Tensor) -> Tensor:
    return images * (1 - mask) + pattern * mask


def _sameness(images: Tensor, drawn: Tensor) -> Tensor:
    """The diversity loss: how much two images differ, over how much what is drawn for them does."""
    apart = (images - images.roll(1, 0)).flatten(1).norm(dim=1)
    drawn_apart = (drawn - drawn.roll(1, 0)).flatten(1).norm(dim=1)
    return torch.mean(apart / (drawn_apart + SMALL))


def _step(optimiser: torch.optim.Optimizer, loss: Tensor) -> None:
    optimiser.zero_grad(set_to_none=True)
    loss.backward()
    optimiser.step()
