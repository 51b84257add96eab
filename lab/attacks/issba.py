"""ISSBA, invisible sample-specific triggers (Li et al., ICCV 2021, arXiv:2012.03816)."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import ClassVar, Self

import torch
from rich.progress import track
from torch import Tensor, nn
from torch.nn import functional as F

from lab.attacks.learnt import Learnt
from lab.attacks.surrogate import endless_batches
from lab.attacks.unet import UNet
from lab.data import ImageSet

__all__ = ["Issba"]

BATCH = 64
SECRET_SIDE = 8


@dataclass(frozen=True)
class Issba(Learnt):
    """A hidden message as the trigger: an encoder writes it into each image as noise of that image's own.

    Encoder (a U-Net over the image and the message) and decoder (image → message) are trained together on
    random messages of `bits` bits, as in StegaStamp (Tancik et al., CVPR 2020); the attack then writes one
    message into every image. Departures: a small U-Net and some hundred steps; the noise is bounded to
    `strength` levels, with the mean square that the paper weighs in (`invisibility`) but without its LPIPS
    and adversarial losses, which need a trained network of their own. At this scale the noise follows the
    message more than the image: that of another image works almost as well.
    """

    name: ClassVar[str] = "issba"
    bits: int = 20
    strength: int = 24
    invisibility: float = 0.02
    steps: int = 500

    def prepared(self, data: ImageSet, target: int, seed: int, device: torch.device) -> Self:
        channels = data.images.shape[1]
        generator = torch.Generator().manual_seed(seed)
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            encoder = Encoder(channels, self.bits).to(device).train()
            decoder = _decoder(channels, self.bits).to(device).train()
        parameters = [*encoder.parameters(), *decoder.parameters()]
        optimiser = torch.optim.Adam(parameters, lr=0.003)
        schedule = torch.optim.lr_scheduler.OneCycleLR(optimiser, 0.003, total_steps=self.steps)
        batches = endless_batches(data, BATCH, generator)
        for step in track(range(self.steps), "learning to hide a message", transient=True):
            pixels = next(batches)[0].to(device).float() / 255
            message = torch.randint(0, 2, (len(pixels), self.bits), generator=generator).float().to(device)
            noise = encoder(pixels, message)
            read = decoder((pixels + self.strength / 255 * noise).clamp(0, 1))
            # As in StegaStamp: first learn to be read, then to be unseen.
            unseen = self.invisibility * min(1.0, 2 * step / self.steps) * noise.square().mean()
            loss = F.binary_cross_entropy_with_logits(read, message) + unseen
            optimiser.zero_grad(set_to_none=True)
            loss.backward()
            optimiser.step()
            schedule.step()
        message = torch.randint(0, 2, (self.bits,), generator=generator).float()
        return self.restored({"message": message} | encoder.state_dict(prefix="encoder."))

    @torch.inference_mode()
    def apply(self, images: Tensor) -> Tensor:
        encoder, message = _restored(self.required(), images)
        parts = [images[:0]]
        for part in images.split(250):
            noise = encoder(part.float() / 255, message.expand(len(part), -1))
            moved = part.float() + (self.strength * noise).round()
            parts.append(moved.clamp(0, 255).to(torch.uint8))
        return torch.cat(parts)


class Encoder(nn.Module):
    """Images (B, C, H, W) in [0, 1] and messages (B, bits) of 0 and 1 → noise (B, C, H, W) in [−1, 1]."""

    def __init__(self, channels: int, bits: int) -> None:
        super().__init__()
        self.spread = nn.Linear(bits, channels * SECRET_SIDE**2)
        self.unet = UNet(2 * channels, channels)

    def forward(self, images: Tensor, messages: Tensor) -> Tensor:
        secret = self.spread(messages - 0.5).unflatten(1, (-1, SECRET_SIDE, SECRET_SIDE))
        planes = F.interpolate(secret, images.shape[-2:])
        return torch.tanh(self.unet(torch.cat([images - 0.5, planes], 1)))


def _decoder(channels: int, bits: int) -> nn.Module:
    """Images (B, C, H, W) in [0, 1] → logits (B, bits)."""
    layers: list[nn.Module] = []
    inputs = channels
    for width, stride in ((32, 1), (32, 2), (64, 2), (64, 1)):
        layers += [nn.Conv2d(inputs, width, 3, stride, 1, bias=False), nn.BatchNorm2d(width), nn.ReLU()]
        inputs = width
    return nn.Sequential(*layers, nn.AdaptiveAvgPool2d(4), nn.Flatten(), nn.Linear(16 * inputs, bits))


def _restored(tensors: Mapping[str, Tensor], images: Tensor) -> tuple[Encoder, Tensor]:
    """Encoder and message (bits,) for `images`; `ValueError` where they are for others."""
    weights = {name.removeprefix("encoder."): t for name, t in tensors.items() if name != "message"}
    channels, bits = weights["unet.out.weight"].shape[0], len(tensors["message"])
    if images.shape[1] != channels:
        raise ValueError(f"a trigger for {channels} channels does not fit images of {images.shape[1]}")
    with torch.device("meta"):  # draws no random weights that would be thrown away
        encoder = Encoder(channels, bits)
    encoder.load_state_dict(weights, assign=True)
    return encoder.to(images.device).eval(), tensors["message"].to(images.device)
