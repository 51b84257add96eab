"""What rejected images really show, for those who may know: the most likely true labels.

A nicety: where it cannot be told in time, or at all, the verdict goes out without it.
"""

import asyncio
import logging
import time
from collections.abc import Sequence
from dataclasses import replace

import torch
from torch import Tensor

from app.firewall import Inspection, Suggested
from app.isolation import Unjudged
from app.worker import Worker
from detectors.base import Classifier, DetectorError
from detectors.suggestion import suggest
from models.errors import ModelError
from models.remote import due

__all__ = ["suggested_labels", "with_suggestions"]

log = logging.getLogger("triggerwall.suggestions")

MOST = 32  # images of one request: a form full of triggered images must not hold up everybody


def suggested_labels(classifier: Classifier, images: Tensor, labels: Sequence[int]) -> list[Suggested]:
    """Of `images` (B, C, H, W) on the CPU, rejected with `labels`; on the thread that owns the device."""
    rejected = torch.tensor(labels, dtype=torch.int64)
    device = getattr(classifier, "device", images.device)
    found = suggest(classifier, images.to(device), rejected.to(device))
    return [Suggested(*each) for each in zip(found.labels.tolist(), found.shares.tolist(), strict=True)]


async def with_suggestions(
    worker: Worker,
    classifier: Classifier,
    images: Tensor,
    outcomes: Sequence[Inspection | Unjudged],
    deadline: float,
) -> list[Inspection | Unjudged]:
    """`outcomes` of `images` (B, C, H, W), the first `MOST` of those that a detector finds suspicious with a
    suggestion, unless `deadline`, of `time.monotonic`, comes first. What nothing looked at has none."""
    inspected = [(place, each) for place, each in enumerate(outcomes) if isinstance(each, Inspection)]
    suspicious = dict([(place, each) for place, each in inspected if each.suspicious][:MOST])
    if not suspicious or classifier.num_classes < 2:
        return list(outcomes)
    labels = [each.label for each in suspicious.values()]

    def found() -> list[Suggested]:
        with due(deadline):
            return suggested_labels(classifier, images[list(suspicious)], labels)

    try:
        suggestions = await asyncio.wait_for(worker.run(found), deadline - time.monotonic())
    except (TimeoutError, DetectorError, ModelError, RuntimeError) as error:
        log.warning("no label was suggested for %d images: %s", len(labels), str(error) or "out of time")
        return list(outcomes)
    told = {
        place: replace(each, suggested=suggestion)
        for (place, each), suggestion in zip(suspicious.items(), suggestions, strict=True)
    }
    return [told.get(place, each) for place, each in enumerate(outcomes)]
