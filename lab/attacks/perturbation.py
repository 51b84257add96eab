"""Small changes of pixels that a classifier reads as something else: of one image, or the same for all.

Pixel values and bounds are in levels, 0 to 255, as the files have them.
"""

import torch
from rich.progress import track
from torch import Tensor, nn
from torch.nn import functional as F

from lab.attacks.surrogate import endless_batches
from lab.data import ImageSet

__all__ = ["adversarial", "perturbed", "universal"]

BATCH = 128


def perturbed(images: Tensor, delta: Tensor) -> Tensor:
    """`images` (N, C, H, W) uint8 plus `delta` (C, H, W), whole levels, clipped to 0..255.

    Raises `ValueError` where the two differ in shape.
    """
    if images.shape[1:] != delta.shape:
        raise ValueError(f"a trigger for {tuple(delta.shape)} does not fit images {tuple(images.shape[1:])}")
    moved = images.to(torch.int16) + delta.to(images.device, torch.int16)
    return moved.clamp(0, 255).to(torch.uint8)


def adversarial(network: nn.Module, images: Tensor, label: int, epsilon: int, steps: int) -> Tensor:
    """`images` (N, C, H, W) uint8 of class `label`, each moved by at most `epsilon` levels away from it.

    Projected gradient ascent on the cross-entropy in the maximum norm (Madry et al., ICLR 2018, section
    2.1), step 2.5 ε / steps, from the image itself. `network` maps pixels in [0, 1] to logits.
    """
    device = next(network.parameters()).device
    moved = [images[:0]]
    for part in track(images.split(BATCH), "perturbing", transient=True):
        clean = part.to(device).float() / 255
        current = clean.clone()
        labels = torch.full((len(part),), label, device=device)
        for _ in range(steps):
            current.requires_grad_()
            loss = F.cross_entropy(network(current), labels, reduction="sum")
            (gradient,) = torch.autograd.grad(loss, current)
            current = current.detach() + 2.5 * epsilon / steps / 255 * gradient.sign()
            current = clean + (current - clean).clamp(-epsilon / 255, epsilon / 255)
            current = current.clamp(0, 1)
        moved.append((current * 255).round().to(torch.uint8).to(images.device))
    return torch.cat(moved)


def universal(network: nn.Module, data: ImageSet, target: int, epsilon: int, steps: int, seed: int) -> Tensor:
    """One perturbation (C, H, W) int16, |δ| ≤ `epsilon` levels, that pulls the images of `data` to `target`.

    Minimises E_x CE(f(clip(x + δ)), target) by Adam, projected onto the bound after each step.
    """
    device = next(network.parameters()).device
    delta = torch.zeros(data.images.shape[1:], device=device, requires_grad=True)
    optimiser = torch.optim.Adam([delta], lr=epsilon / 255 / 10)
    batches = endless_batches(data, BATCH, torch.Generator().manual_seed(seed))
    for _ in track(range(steps), "learning the trigger", transient=True):
        images, _ = next(batches)
        pixels = (images.to(device).float() / 255 + delta).clamp(0, 1)
        loss = F.cross_entropy(network(pixels), torch.full((len(pixels),), target, device=device))
        optimiser.zero_grad(set_to_none=True)
        loss.backward()
        optimiser.step()
        with torch.no_grad():
            delta.clamp_(-epsilon / 255, epsilon / 255)
    return (delta.detach() * 255).round().to(torch.int16).cpu()
