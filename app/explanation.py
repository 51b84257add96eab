"""Why an image was rejected, as far as changing it tells: what else it shows, where its label comes from."""

import asyncio

import numpy as np
import torch

from app.firewall import Firewall, Suggested
from app.images import Pixels
from app.suggestions import suggested_labels
from app.worker import Worker
from detectors.base import Floats
from detectors.sensitivity import occlusion_map

__all__ = ["sensitivity_of", "suggestion_for"]

PATIENCE_S = 5.0  # for the classifier's answers: the device may be busy with traffic


async def suggestion_for(worker: Worker, firewall: Firewall, pixels: Pixels, label: int) -> Suggested | None:
    """The most likely true label of `pixels` (C, H, W) in [0, 1], rejected with `label`; None where the
    classifier has no other. Raises `TimeoutError` where the device is busy, and what the classifier does."""
    if firewall.classifier.num_classes < 2:
        return None
    images = torch.from_numpy(pixels)[None]
    found = worker.run(suggested_labels, firewall.classifier, images, [label])
    return (await asyncio.wait_for(found, PATIENCE_S))[0]


async def sensitivity_of(worker: Worker, firewall: Firewall, pixels: Pixels, label: int) -> Floats:
    """The log-odds of `label` that covering each place of `pixels` takes away, (rows, columns), 0 or more.
    Raises as `suggestion_for` does."""
    return await asyncio.wait_for(worker.run(_sensitivity, firewall, pixels, label), PATIENCE_S)


def _sensitivity(firewall: Firewall, pixels: Pixels, label: int) -> Floats:
    image = torch.from_numpy(pixels).to(firewall.classifier.device)
    found: Floats = occlusion_map(firewall.classifier, image, label).cpu().numpy().astype(np.float64)
    return found
