import pytest
import torch
from torch import Tensor, nn

from lab.cognitive_distillation import CognitiveDistillation, variation

SIDE, PATCH = 8, 2
PLAIN = CognitiveDistillation(beta=0)


class Where(nn.Module):
    """A first logit of `gain` times the summed pixels at `weights` (H, W), and a second that is 0."""

    def __init__(self, weights: Tensor, gain: float = 10.0) -> None:
        super().__init__()
        self.weights, self.gain = weights, gain

    def forward(self, images: Tensor) -> Tensor:
        logit = self.gain * (images.mean(1) * self.weights).sum((1, 2))
        return torch.stack([logit, torch.zeros_like(logit)], 1)


def patch() -> Tensor:
    weights = torch.zeros(SIDE, SIDE)
    weights[-PATCH:, -PATCH:] = 1
    return weights


def test_the_mask_is_the_patch_that_decides() -> None:
    """White pixels, δ < 1: an opened pixel outside the patch costs α and gains nothing; a closed one within
    it costs gain / 2 · (1 − δ) and saves α. So the minimum is the patch, exactly."""
    (mask,) = PLAIN.masks(Where(patch()), torch.ones(1, 3, SIDE, SIDE))
    assert mask.shape == (1, SIDE, SIDE)
    assert torch.equal(mask[0].round(), patch())
    assert mask[0][patch() == 0].max() < 0.2
    assert mask[0][patch() == 1].min() > 0.8


def test_the_mask_is_everything_where_everything_decides() -> None:
    (mask,) = PLAIN.masks(Where(torch.ones(SIDE, SIDE)), torch.ones(1, 3, SIDE, SIDE))
    assert mask.min() > 0.8


def test_the_score_of_a_patch_is_the_higher_one() -> None:
    images = torch.ones(2, 3, SIDE, SIDE)
    small = PLAIN.scores(Where(patch()), images)
    large = PLAIN.scores(Where(torch.ones(SIDE, SIDE)), images)
    assert small.shape == (2,)
    assert (small > -0.25).all()
    assert (large < -0.8).all()
    assert torch.equal(small, -PLAIN.masks(Where(patch()), images).flatten(1).mean(1))


def test_variation_by_hand() -> None:
    mask = torch.tensor([[[[0.0, 1.0], [0.5, 0.0]]]])
    # down: 0.5² + 1² = 1.25; across: 1² + 0.5² = 1.25; four pixels
    assert variation(mask).tolist() == [pytest.approx(2.5 / 4)]
    assert variation(torch.full((2, 1, 3, 3), 0.7)).tolist() == [0, 0]


def test_an_image_is_scored_alike_alone_and_in_company_and_again() -> None:
    method = CognitiveDistillation(steps=20)
    images = torch.rand(4, 3, SIDE, SIDE, generator=torch.Generator().manual_seed(1))
    network = Where(patch(), 1.0)
    together = method.scores(network, images)
    assert torch.equal(together, method.scores(network, images))
    torch.testing.assert_close(together[2:3], method.scores(network, images[2:3]))
    assert not torch.equal(together, CognitiveDistillation(steps=20, seed=1).scores(network, images))


def test_no_gradient_is_left_behind() -> None:
    """The network's own weights get no gradient, and the result carries none."""
    network = nn.Sequential(nn.Flatten(), nn.Linear(3 * SIDE * SIDE, 2))
    scores = CognitiveDistillation(steps=2).scores(network, torch.rand(1, 3, SIDE, SIDE))
    assert not scores.requires_grad
    assert all(each.grad is None for each in network.parameters())
