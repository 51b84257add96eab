"""How often is the label that is suggested for a rejected image the true one?"""

from dataclasses import dataclass

import numpy as np
import torch
from rich.table import Table

from detectors.suggestion import suggest
from lab.data import ImageSet
from lab.tabular import slim_table
from models.torch_module import TorchClassifier

__all__ = ["Suggested", "judge_suggestions", "suggestions_table"]

BATCH = 125
SURE = 0.5  # of `Suggestion.shares`


@dataclass(frozen=True)
class Suggested:
    """Of the triggered images that the model takes for the target: how many they are, how often it is right
    about the same images without the trigger, how often their runner-up and their suggestion is the true
    label, the share whose suggestion is sure, and how often those are right (None without any)."""

    model: str
    attack: str
    images: int
    without_trigger: float
    runner_up: float
    suggested: float
    sure: float
    suggested_sure: float | None


@torch.inference_mode()
def judge_suggestions(
    classifier: TorchClassifier, attack: str, plain: ImageSet, triggered: torch.Tensor, target: int
) -> Suggested | None:
    """`plain` (N, C, H, W) and the same images `triggered`; None where none of these reaches `target`."""
    columns = []
    for clean, bad, labels in zip(
        plain.images.split(BATCH), triggered.split(BATCH), plain.labels.split(BATCH), strict=True
    ):
        pixels = bad.to(classifier.device).float() / 255
        logits = classifier.logits(pixels)
        reached = (logits.argmax(1) == target).cpu()
        found = suggest(classifier, pixels, torch.full((len(pixels),), target, device=classifier.device))
        second = logits.index_fill(1, torch.tensor([target], device=logits.device), -torch.inf).argmax(1)
        without = classifier.logits(clean.to(classifier.device).float() / 255).argmax(1)
        right = [each.cpu() == labels for each in (without, second, found.labels)]
        columns.append(torch.stack([*right, found.shares.cpu() >= SURE])[:, reached])
    without_trigger, runner_up, suggested, sure = torch.cat(columns, dim=1).numpy()
    if not len(sure):
        return None
    return Suggested(
        classifier.info.name,
        attack,
        len(sure),
        float(without_trigger.mean()),
        float(runner_up.mean()),
        float(suggested.mean()),
        float(sure.mean()),
        float(suggested[sure].mean()) if np.any(sure) else None,
    )


def suggestions_table(found: list[Suggested]) -> Table:
    """One line per model."""
    headings = ("attack", "images", "right without trigger", "runner- up", "sug- gested", "sure")
    table = slim_table("", "model", *headings, "right if sure")
    for each in found:
        shares = (each.without_trigger, each.runner_up, each.suggested, each.sure, each.suggested_sure)
        told = ["—" if share is None else f"{share:.3f}" for share in shares]
        table.add_row(each.model, each.attack, str(each.images), *told)
    return table
