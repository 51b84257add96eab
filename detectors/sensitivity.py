"""Where does the prediction come from? What covering each part of an image does to it (Zeiler and Fergus,
"Visualizing and understanding convolutional networks", ECCV 2014, section 4.2).

A trigger that stays in its place stands out: covering it, and hardly anything else, changes the answer.
"""

import torch
from torch import Tensor

from detectors.base import Classifier
from detectors.profile import log_odds

__all__ = ["CELLS", "occlusion_map"]

CELLS = 7
"""Places along either side. The cover is a quarter of the side wide and moves by an eighth."""


@torch.inference_mode()
def occlusion_map(classifier: Classifier, image: Tensor, label: int) -> Tensor:
    """(C, H, W) in [0, 1] → (CELLS, CELLS) float32 ≥ 0: how much log-odds of `label` is lost where a square
    of the image's mean colour covers it. Costs one forward pass for each cell and one for the image."""
    height, width = image.shape[1:]
    mean = image.mean((1, 2), keepdim=True)
    copies = image.repeat(1 + CELLS * CELLS, 1, 1, 1)
    for cell in range(CELLS * CELLS):
        row, column = divmod(cell, CELLS)
        top, left = row * height // (CELLS + 1), column * width // (CELLS + 1)
        bottom, right = -(-(row + 2) * height // (CELLS + 1)), -(-(column + 2) * width // (CELLS + 1))
        copies[1 + cell, :, top:bottom, left:right] = mean
    logits = classifier.logits(copies)
    odds = log_odds(logits, torch.full((len(copies),), label, device=logits.device))
    return (odds[0] - odds[1:]).clamp(min=0).nan_to_num(nan=0.0).view(CELLS, CELLS)
