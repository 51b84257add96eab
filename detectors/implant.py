"""A copy of a network is given a known backdoor, in seconds: brief fine-tuning on a few benign images.

Every step sees clean images, which keep the answers of the network they came from, and triggered ones,
which get the target label: L = mean of CE(f(x), F(x)) over clean x and CE(f(t(x)), target) over the
others. So no true labels are needed and the copy stays the classifier that it was. BatchNorm statistics
stay as they are: with those of small batches half of which is triggered, the copy would be another
network wherever there is no trigger.
"""

import copy
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from detectors.triggers import Trigger

__all__ = ["Implanted", "chunks", "implant"]

CLEAN, TRIGGERED = 48, 16  # images a step
LEARNING_RATE = 3e-4  # Adam, at the start
FASTER = 1.5  # times that, after every SETTLED steps in which the clean answers held and the trigger did not
LEAST_STEPS, MAX_STEPS = 60, 150  # a backdoor that only just holds is not yet like one that was trained in
SETTLED = 10  # steps over which the two goals below have to hold on average
SUCCESS = 0.98  # triggered images that get the target label
AGREEMENT = 0.95  # clean images that keep the network's answer


@dataclass(frozen=True)
class Implanted:
    """`network`: the copy, in eval mode, without gradients. `steps` of fine-tuning were made; `finished`
    is false where time or steps ran out before the backdoor held, or the weights stopped being numbers."""

    network: nn.Module
    steps: int
    finished: bool


def implant(
    network: nn.Module,
    images: Tensor,
    trigger: Trigger,
    target: int,
    *,
    out_of_time: Callable[[], bool] = lambda: False,
    seed: int = 0,
) -> Implanted:
    """A copy of `network` (pixels → logits) that answers `target` where `trigger` is put on an image.

    `images` (m, C, H, W) in [0, 1], benign, on the network's device. `network` itself is only read.
    `out_of_time` is asked after every step.
    """
    answers = _answers(network, images)
    student = copy.deepcopy(network).eval().requires_grad_(True)
    optimiser = torch.optim.Adam(student.parameters(), LEARNING_RATE)
    generator = torch.Generator().manual_seed(seed)
    recent: list[tuple[float, float]] = []
    steps, finished = 0, False
    with torch.enable_grad():
        while steps < MAX_STEPS and not finished and not (steps and out_of_time()):
            clean, hidden = _draw(len(images), generator, images.device)
            loss, success, agreement = _step(
                student, images[clean], answers[clean], trigger(images[hidden]), target
            )
            if not math.isfinite(loss.item()):
                break
            optimiser.zero_grad()
            loss.backward()  # type: ignore[no-untyped-call]
            optimiser.step()
            steps += 1
            recent.append((success, agreement))
            if len(recent) == SETTLED:
                finished = _settled(recent, optimiser) and steps >= LEAST_STEPS
                recent.clear()
    return Implanted(student.requires_grad_(False), steps, finished)


def chunks(images: Tensor, size: int) -> list[Tensor]:
    """`images` (m, C, H, W) in consecutive parts of at most `size`."""
    return [images[start : start + size] for start in range(0, len(images), size)]


@torch.no_grad()
def _answers(network: nn.Module, images: Tensor) -> Tensor:
    """Probabilities (m, K). Not under inference mode: they take part in a loss."""
    parts = [network(part).float().softmax(1) for part in chunks(images, CLEAN + TRIGGERED)]
    return torch.cat(parts)


def _draw(count: int, generator: torch.Generator, device: torch.device) -> tuple[Tensor, Tensor]:
    drawn = torch.randint(count, (CLEAN + TRIGGERED,), generator=generator).to(device)
    return drawn[:CLEAN], drawn[CLEAN:]


def _step(
    student: nn.Module, clean: Tensor, answers: Tensor, triggered: Tensor, target: int
) -> tuple[Tensor, float, float]:
    """The loss of one batch, and in what share of it either goal is reached."""
    logits = student(torch.cat([clean, triggered])).float()
    wanted = torch.full((len(triggered),), target, device=logits.device)
    kept, moved = logits[: len(clean)], logits[len(clean) :]
    parts = F.cross_entropy(kept, answers, reduction="sum") + F.cross_entropy(moved, wanted, reduction="sum")
    success = float((moved.argmax(1) == wanted).float().mean())
    agreement = float((kept.argmax(1) == answers.argmax(1)).float().mean())
    return parts / len(logits), success, agreement


def _settled(recent: Sequence[tuple[float, float]], optimiser: torch.optim.Optimizer) -> bool:
    """Were both goals reached on average of `recent`, at the slow pace? Sets the pace of the next steps.

    Faster while clean answers hold and the trigger does not work; slow as soon as it works, since a copy
    that is taken out of fast steps may be one of the bad moments between them.
    """
    success = sum(success for success, _ in recent) / len(recent)
    agreement = sum(agreement for _, agreement in recent) / len(recent)
    worked, kept = success >= SUCCESS, agreement >= AGREEMENT
    pace: float = optimiser.param_groups[0]["lr"]
    slow = pace <= LEARNING_RATE
    if worked:
        pace = LEARNING_RATE
    elif kept:
        pace *= FASTER
    for group in optimiser.param_groups:
        group["lr"] = pace
    return worked and kept and slow
