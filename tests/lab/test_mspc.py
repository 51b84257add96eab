import pytest
import torch
from torch import Tensor, nn

from lab.mspc import Mspc

SIDE = 6


class Bright(nn.Module):
    """Class 1 where the mean of the pixels in `where` (H, W) exceeds one half, else class 0."""

    def __init__(self, where: Tensor, gain: float = 40.0) -> None:
        super().__init__()
        self.where = nn.Parameter(where, requires_grad=False)
        self.gain = gain

    def forward(self, images: Tensor) -> Tensor:
        mean = (images.mean(1) * self.where).sum((1, 2)) / self.where.sum()
        logit = self.gain * (mean - 0.5)
        return torch.stack([-logit, logit], 1)


def corner() -> Tensor:
    where = torch.zeros(SIDE, SIDE)
    where[:2, :2] = 1
    return where


def test_the_loss_by_hand() -> None:
    """0.3 − 0.1, times 2 is 0.4 and keeps the label; times 3 to 12 it is 0.6 and more, and does not."""
    images = torch.full((2, 3, SIDE, SIDE), 0.3)
    images[1] = 0.9
    scores = Mspc().scores(Bright(corner()), images, torch.ones(SIDE, SIDE))
    # the second: 0.8 × 2 and more is white, and white is bright
    assert scores.tolist() == [pytest.approx((1 - 10) / 11), 1.0]


def test_what_the_mask_covers_does_not_count() -> None:
    images = torch.full((1, 3, SIDE, SIDE), 0.9)
    scores = Mspc(scales=(2.0, 3.0)).scores(Bright(corner()), images, 1 - corner())
    assert scores.tolist() == [-1.0]


def test_an_answer_that_is_not_a_number_clears_nobody() -> None:
    class Lost(nn.Module):
        def forward(self, images: Tensor) -> Tensor:
            return torch.full((len(images), 2), torch.nan)

    assert Mspc().scores(Lost(), torch.rand(2, 1, 4, 4), torch.ones(4, 4)).tolist() == [1.0, 1.0]


def test_the_mask_keeps_the_trigger_and_drops_the_rest() -> None:
    """Only the corner decides, so λ takes every other pixel away, and KL keeps the corner."""
    images = torch.randint(0, 256, (40, 3, SIDE, SIDE), dtype=torch.uint8)
    images[:, :, :2, :2] = 250
    method = Mspc(scales=(2.0, 4.0), batch=10, rounds=4, epochs=20)
    mask = method.learn_mask(Bright(corner()), images)
    assert mask.shape == (SIDE, SIDE)
    assert mask[corner() == 0].max() == 0
    assert mask[corner() == 1].min() > 0.25  # 2 · 0.25 · (0.98 − 0.1) alone would be too dark
    assert torch.equal(mask, method.learn_mask(Bright(corner()), images))


def test_without_suspects_only_the_sparsity_pulls() -> None:
    """Images that all turn: w is 0 throughout, and one step takes λ and the decay off the mask of ones."""
    method = Mspc(scales=(9.0,), rounds=1, epochs=1, batch=8)
    mask = method.learn_mask(Bright(corner()), torch.full((8, 3, SIDE, SIDE), 80, dtype=torch.uint8))
    assert mask.unique().tolist() == [pytest.approx(1 - 0.1 * (0.01 + 5e-4))]
