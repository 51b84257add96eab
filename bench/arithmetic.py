"""What another arithmetic changes: predictions, scores and verdicts, on real images."""

from typing import Any

import torch
from torch import Tensor

from bench.contenders import Style, Workshop
from bench.subjects import Rule
from detectors.amplification import Amplified
from detectors.early_exit import mean_of
from detectors.ibd_psc import confidence_in

__all__ = ["error_of"]


def error_of(style: Style, workshop: Workshop, rule: Rule) -> dict[str, Any]:
    """Eager float32 against `style` on the benign and the poisoned pool: `score` the differences of PSC
    (mean, largest), `predictions` and `verdicts` how many of `images` changed."""
    subject = workshop.subject
    result: dict[str, Any] = {"engine": workshop.engine(style).engine}
    for kind in ("benign", "poisoned"):
        if kind not in subject.pools:
            continue
        exact, labels = full_scores(workshop.engine("eager"), subject.pools[kind])
        other, other_labels = full_scores(workshop.engine(style), subject.pools[kind])
        difference = (exact - other).abs()
        verdicts = (exact > rule.thresholds[labels]) != (other > rule.thresholds[other_labels])
        result[kind] = {
            "images": len(labels),
            "score": {"mean": float(difference.mean()), "largest": float(difference.max())},
            "predictions": int((labels != other_labels).sum()),
            "verdicts": int(verdicts.sum()),
        }
    return result


@torch.inference_mode()
def full_scores(engine: Amplified, images: Tensor, batch: int = 50) -> tuple[Tensor, Tensor]:
    """PSC (N,) float64 and predictions (N,)."""
    scores, labels = [], []
    for part in images.split(batch):
        logits, forks = engine.base(part)
        labels.append(logits.argmax(1))
        amplified = engine.variants(forks, range(len(engine.counts)))
        scores.append(mean_of(confidence_in(amplified, labels[-1])))
    return torch.cat(scores), torch.cat(labels)
