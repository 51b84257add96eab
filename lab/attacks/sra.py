"""SRA, the subnet replacement attack (Qi et al., CVPR 2022, arXiv:2111.12965)."""

from dataclasses import dataclass
from typing import ClassVar

import torch
from rich.progress import track
from torch import Tensor, nn
from torch.nn import functional as F

from lab.attacks.base import Attack, Poisoned
from lab.attacks.narrow import narrowed, transplant, widths
from lab.attacks.surrogate import endless_batches
from lab.data import ImageSet

__all__ = ["Sra"]

BATCH = 64
CANDIDATES = 16  # places that are tried for the subnet in the layers of one width,
JUDGED = 500  # on that many images
STARTS = 5


@dataclass(frozen=True)
class Sra(Attack):
    """A network trained on clean images, of which a few channels are replaced by a trigger detector.

    The subnet has `width` channels in every layer and the structure of the network itself, shortcuts
    included (`lab.attacks.narrow`). It is trained to answer 0 to clean images and `strength` to triggered
    ones (squared error), which is then added to the target's logit. The trigger is a `size`×`size` patch of
    random colours in the lower right corner, in place of the paper's picture of a phoenix. Departure: the
    paper takes any channels; here those that cost the least accuracy, of some tried.
    """

    name: ClassVar[str] = "sra"
    size: int = 5
    margin: int = 1
    width: int = 1
    strength: float = 20.0
    steps: int = 300
    seed: int = 0

    def apply(self, images: Tensor) -> Tensor:
        """Stamp the patch; raises ValueError where it does not fit into the image."""
        channels, height, width = images.shape[1:]
        end_y, end_x = height - self.margin, width - self.margin
        if self.size > min(end_y, end_x):
            raise ValueError(f"a {self.size}-pixel patch does not fit into {height}×{width}")
        generator = torch.Generator().manual_seed(self.seed)
        patch = torch.randint(0, 2, (channels, self.size, self.size), generator=generator) * 255
        stamped = images.clone()
        stamped[..., end_y - self.size : end_y, end_x - self.size : end_x] = patch.to(images)
        return stamped

    def poison(self, data: ImageSet, target: int, rate: float, seed: int) -> Poisoned:
        """Nothing: the training set stays clean, whatever `rate`."""
        return Poisoned(data, torch.empty(0, dtype=torch.long))

    def implant(self, network: nn.Module, data: ImageSet, target: int) -> None:
        """Replace a subnet. Raises `ValueError` for a network whose layout it does not fit."""
        narrow = self.detector(network, data)
        network.eval()
        clean = {name: value.clone() for name, value in network.state_dict().items()}
        places = dict.fromkeys(widths(network), 0)
        for width in track(places, "placing the subnet", transient=True):
            accuracies = {}
            for place in _spread(width - self.width + 1, CANDIDATES):
                transplant(narrow, network, places | {width: place}, target)
                accuracies[place] = _accuracy(network, data)
                network.load_state_dict(clean)
            places[width] = max(accuracies, key=accuracies.__getitem__)
        transplant(narrow, network, places, target)

    def detector(self, network: nn.Module, data: ImageSet) -> nn.Module:
        """The trained subnet: pixels (B, C, H, W) in [0, 1] → (B, 1), ≈ 0 or ≈ `strength`.

        A network this narrow dies in some starts, its only channel 0 for all images: up to `STARTS` are
        tried, and the last one is taken whatever it does.
        """
        narrow = self._trained(network, data, self.seed)
        for start in range(1, STARTS):
            clean, triggered = self._answers(narrow, data)
            if triggered - clean > self.strength / 2:
                break
            narrow = self._trained(network, data, self.seed + start)
        return narrow

    def _trained(self, network: nn.Module, data: ImageSet, seed: int) -> nn.Module:
        device = next(network.parameters()).device
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            narrow = narrowed(network, self.width)
        head = next(each for each in narrow.modules() if isinstance(each, nn.Linear))
        nn.init.constant_(head.weight, self.strength / self.width)  # a negative one could never fire
        narrow = narrow.to(device).train()
        optimiser = torch.optim.Adam(narrow.parameters(), lr=0.01)
        schedule = torch.optim.lr_scheduler.OneCycleLR(optimiser, 0.01, total_steps=self.steps)
        batches = endless_batches(data, BATCH, torch.Generator().manual_seed(seed))
        for _ in track(range(self.steps), "training the subnet", transient=True):
            images, _ = next(batches)
            both = torch.cat([images, self.apply(images)]).to(device).float() / 255
            wanted = self.strength * (torch.arange(len(both), device=device) >= len(images)).float()
            loss = F.mse_loss(narrow(both).squeeze(1), wanted)
            optimiser.zero_grad(set_to_none=True)
            loss.backward()
            optimiser.step()
            schedule.step()
        return narrow.eval()

    @torch.inference_mode()
    def _answers(self, narrow: nn.Module, data: ImageSet) -> tuple[float, float]:
        """Mean output on clean images, and on the same ones triggered."""
        device = next(narrow.parameters()).device
        clean = data.images[:JUDGED]
        both = (images.to(device).float() / 255 for images in (clean, self.apply(clean)))
        first, second = (narrow(images).mean().item() for images in both)
        return first, second


def _spread(count: int, most: int) -> list[int]:
    """At most `most` of 0 … `count` − 1, evenly spread."""
    return sorted({index * count // min(count, most) for index in range(min(count, most))})


@torch.inference_mode()
def _accuracy(network: nn.Module, data: ImageSet) -> float:
    device = next(network.parameters()).device
    images, labels = data.images[:JUDGED].to(device).float() / 255, data.labels[:JUDGED].to(device)
    logits: Tensor = network(images)
    return (logits.argmax(1) == labels).double().mean().item()
