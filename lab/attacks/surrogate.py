"""The attacker's own classifier, against which a trigger is learnt before the victim trains.

The papers use a network like the victim's, trained in full. Here it is a ResNet with one block a stage
(ResNet-8, He et al., CVPR 2016) that sees some thousand images for a few epochs, so that two CPU cores make
it in a minute or two. It need not classify well: its gradients have to point where the victim's will.
"""

import hashlib
from collections.abc import Iterator, Mapping

import torch
from rich.progress import track
from torch import Tensor, nn
from torch.nn import functional as F

from lab.augment import augment
from lab.blueprint import channel_statistics
from lab.data import ImageSet
from models.contract import Normalise
from models.zoo import BasicBlock, SmallResNet, conv3x3, pooled_linear

__all__ = ["endless_batches", "surrogate", "surrogate_from", "tensors_of"]

IMAGES = 20_000
EPOCHS = 6
BATCH = 64
LEARNING_RATE = 0.1
PADDING = 2  # no mirroring: it would change what a digit or a traffic sign is

_trained: dict[str, nn.Module] = {}  # the last one: a study prepares several attacks on the same images


def surrogate(data: ImageSet, seed: int, device: torch.device, epsilon: float = 0.0) -> nn.Module:
    """A classifier of `data`, pixels (B, C, H, W) in [0, 1] → logits; frozen, in eval mode, on `device`.

    With `epsilon` in [0, 1] pixel units it is trained on images that one step of the gradient sign moved by
    up to that much (Wong et al., ICLR 2020, algorithm 3): a robust network's perturbations show the
    features of the other class instead of noise that fits one network.
    """
    digest = hashlib.sha256(data.images.numpy().tobytes())
    digest.update(data.labels.numpy().tobytes())
    digest.update(f"{seed} {device} {epsilon} {IMAGES} {EPOCHS}".encode())
    key = digest.hexdigest()
    if key not in _trained:
        network = _train(data, seed, device, epsilon)
        _trained.clear()
        _trained[key] = network
    return _trained[key]


def tensors_of(network: nn.Module) -> dict[str, Tensor]:
    """What `surrogate_from` needs to build a surrogate again, on the CPU."""
    return {name: value.detach().cpu().clone() for name, value in network.state_dict().items()}


def surrogate_from(tensors: Mapping[str, Tensor], device: torch.device) -> nn.Module:
    """The surrogate of `tensors_of`, frozen and in eval mode, on `device`."""
    channels, classes = tensors["0.mean"].shape[0], tensors["1.head.2.bias"].shape[0]
    with torch.device("meta"):  # draws no random weights that would be thrown away
        network = _network(classes, (0.0,) * channels, (1.0,) * channels)
    network.load_state_dict(dict(tensors), assign=True)
    return network.to(device).eval().requires_grad_(False)


def endless_batches(data: ImageSet, size: int, generator: torch.Generator) -> Iterator[tuple[Tensor, Tensor]]:
    """Images (B, C, H, W) uint8 with labels (B,), epoch after epoch, each shuffled anew.

    B is `size`, or all images where they are fewer; what fills no batch waits for another epoch.
    """
    size = min(size, len(data))
    while True:
        order = torch.randperm(len(data), generator=generator)
        for index in order[: len(data) // size * size].split(size):
            yield data.images[index], data.labels[index]


def _network(classes: int, mean: tuple[float, ...], std: tuple[float, ...]) -> nn.Module:
    stem = nn.Sequential(conv3x3(len(mean), 16), nn.BatchNorm2d(16), nn.ReLU())
    core = SmallResNet(BasicBlock, stem, [16, 32, 64], 1, nn.Sequential(*pooled_linear(64, classes)))
    return nn.Sequential(Normalise(mean, std), core)


def _train(data: ImageSet, seed: int, device: torch.device, epsilon: float) -> nn.Module:
    generator = torch.Generator().manual_seed(seed)
    part = data.take(torch.randperm(len(data), generator=generator)[:IMAGES])
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        network = _network(len(data.classes), *channel_statistics(data.images))
    network = network.to(device).to(memory_format=torch.channels_last).train()
    steps = EPOCHS * max(1, len(part) // BATCH)
    optimiser = torch.optim.SGD(network.parameters(), LEARNING_RATE, momentum=0.9, weight_decay=5e-4)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimiser, LEARNING_RATE, total_steps=steps, pct_start=0.3)
    batches = endless_batches(part, BATCH, generator)
    for _ in track(range(steps), "training the surrogate", transient=True):
        images, labels = next(batches)
        pixels = augment(images, PADDING, False, generator).float().to(device) / 255
        labels = labels.to(device)
        if epsilon:
            pixels = _moved(network, pixels, labels, epsilon, generator)
        loss = F.cross_entropy(network(pixels), labels)
        optimiser.zero_grad(set_to_none=True)
        loss.backward()
        optimiser.step()
        schedule.step()
    return network.eval().requires_grad_(False)


def _moved(
    network: nn.Module, pixels: Tensor, labels: Tensor, epsilon: float, generator: torch.Generator
) -> Tensor:
    """`pixels` after a random step and one step of the gradient sign, at most `epsilon` away."""
    start = (2 * torch.rand(pixels.shape, generator=generator) - 1).to(pixels.device) * epsilon
    delta = start.requires_grad_()
    loss = F.cross_entropy(network(pixels + delta), labels)
    (gradient,) = torch.autograd.grad(loss, delta)
    delta = (delta.detach() + 1.25 * epsilon * gradient.sign()).clamp(-epsilon, epsilon)
    return (pixels + delta).clamp(0, 1)
