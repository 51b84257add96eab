"""What the fast arithmetic changes: predictions, scores and verdicts, on real images."""

from typing import Any

import torch
from torch import Tensor

from bench.contenders import Workshop
from bench.subjects import Rule
from detectors.amplification import Amplified
from detectors.early_exit import mean_of
from detectors.ibd_psc import confidence_in

__all__ = ["fast_error"]


def fast_error(workshop: Workshop, rule: Rule) -> dict[str, Any]:
    """Exact against fast on the benign and the poisoned pool: `score` the differences of PSC (mean,
    largest), `predictions` and `verdicts` how many of `images` changed."""
    subject = workshop.subject
    result: dict[str, Any] = {"engine": workshop.engine(True).engine}
    for kind in ("benign", "poisoned"):
        if kind not in subject.pools:
            continue
        exact, labels = full_scores(workshop.engine(False), subject.pools[kind])
        fast, fast_labels = full_scores(workshop.engine(True), subject.pools[kind])
        difference = (exact - fast).abs()
        verdicts = (exact > rule.thresholds[labels]) != (fast > rule.thresholds[fast_labels])
        result[kind] = {
            "images": len(labels),
            "score": {"mean": float(difference.mean()), "largest": float(difference.max())},
            "predictions": int((labels != fast_labels).sum()),
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
