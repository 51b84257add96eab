"""Suggested labels, on classifiers whose answers are known."""

from collections.abc import Callable

import pytest
import torch
from scipy.ndimage import median_filter
from torch import Tensor, nn

from detectors.base import InputError
from detectors.changes import border, median, move, shrink_within
from detectors.suggestion import DISARMING, suggest


class Answering:
    """Answers with `answer(images)`, (B, K) logits."""

    network: nn.Module | None = None

    def __init__(self, answer: Callable[[Tensor], Tensor], classes: int = 3) -> None:
        self.answer, self.num_classes = answer, classes

    def logits(self, images: Tensor) -> Tensor:
        return self.answer(images)


def patched(images: Tensor) -> Tensor:
    """Class 0 where the lower right corner is white; else 1 for dark images, 2 for bright ones."""
    white = images[..., -1, -1].mean(1) > 0.9
    bright = images[..., 8:24, 8:24].mean((1, 2, 3)) > 0.5
    labels = torch.where(white, 0, 1 + bright.long())
    return 20.0 * torch.nn.functional.one_hot(labels, 3).float()


def triggered(level: float) -> Tensor:
    image = torch.full((1, 3, 32, 32), level)
    image[..., -3:, -3:] = 1.0
    return image


def test_the_label_that_is_left_when_the_patch_is_gone() -> None:
    images = torch.cat([triggered(0.2), triggered(0.7)])
    classifier = Answering(patched)
    assert classifier.logits(images).argmax(1).tolist() == [0, 0]
    found = suggest(classifier, images, torch.tensor([0, 0]))
    assert found.labels.tolist() == [1, 2]
    # Both rotations, the border, the median and the move by −1 or +1 that pushes it out take it away.
    assert (found.shares > 0.5).all()


def test_by_hand() -> None:
    """Seven changes, asked in their order: votes are the mean probabilities, the rejected label left out."""
    answers = torch.tensor([[0.9, 0.06, 0.04]] * 5 + [[0.1, 0.2, 0.7], [0.2, 0.7, 0.1]]).log()
    found = suggest(Answering(lambda _: answers), torch.rand(1, 1, 8, 8), torch.tensor([0]))
    assert found.labels.tolist() == [1]  # (5 · .06 + .2 + .7)/7 against (5 · .04 + .7 + .1)/7
    assert found.shares.tolist() == pytest.approx([1.2 / 7])
    other = suggest(Answering(lambda _: answers), torch.rand(1, 1, 8, 8), torch.tensor([1]))
    assert other.labels.tolist() == [0]


def test_what_was_rejected_is_never_suggested() -> None:
    nothing = Answering(lambda images: torch.tensor([[50.0, -50.0, -60.0]]).expand(len(images), 3))
    found = suggest(nothing, torch.rand(4, 1, 8, 8), torch.zeros(4, dtype=torch.int64))
    assert found.labels.tolist() == [1, 1, 1, 1]
    assert found.shares.max() < 1e-6
    lost = Answering(lambda images: torch.full((len(images), 3), torch.nan))
    assert 0 not in suggest(lost, torch.rand(2, 1, 8, 8), torch.zeros(2, dtype=torch.int64)).labels


def test_one_class_leaves_none() -> None:
    with pytest.raises(InputError, match="one class"):
        suggest(Answering(patched, 1), torch.rand(1, 3, 32, 32), torch.tensor([0]))


@pytest.mark.parametrize("shape", [(2, 3, 32, 32), (1, 1, 28, 28), (1, 3, 7, 20)])
def test_changes_keep_shape_and_range(shape: tuple[int, ...]) -> None:
    images = torch.rand(shape, generator=torch.Generator().manual_seed(0))
    before = images.clone()
    for change in DISARMING:
        changed = change(images)
        assert changed.shape == images.shape
        assert 0 <= changed.min() <= changed.max() <= 1
        assert not torch.equal(changed, images)
    assert torch.equal(images, before)


def test_moves() -> None:
    ramp = torch.arange(64.0).view(1, 1, 8, 8) / 64
    down, up = move(ramp, 1), move(ramp, -1)
    assert torch.equal(down[..., 1:, 1:], ramp[..., :-1, :-1])
    assert torch.equal(up[..., :-1, :-1], ramp[..., 1:, 1:])
    assert down[0, 0, 0, 0] == ramp[0, 0, 0, 0]
    assert up[0, 0, -1, -1] == ramp[0, 0, -1, -1]


def test_border_and_middle() -> None:
    images = torch.rand(2, 3, 16, 16)
    changed = border(images)
    assert torch.equal(changed[..., 2:-2, 2:-2], images[..., 2:-2, 2:-2])
    torch.testing.assert_close(changed[:, :, 0, 0], images.mean((2, 3)))


def test_median_like_scipy() -> None:
    image = torch.rand(1, 1, 9, 11)
    expected = median_filter(image[0, 0].numpy(), size=3, mode="nearest")
    torch.testing.assert_close(median(image)[0, 0], torch.from_numpy(expected))


def test_shrinking_keeps_the_middle_and_widens_the_edge() -> None:
    ramp = torch.linspace(0, 1, 21).expand(1, 1, 21, 21)
    changed = shrink_within(ramp)
    assert changed[0, 0, 10, 10].item() == pytest.approx(0.5)
    # A pixel 5 to the right of the middle shows what lay 5/0.8 = 6.25 to the right: 0.05 a pixel.
    assert changed[0, 0, 10, 15].item() == pytest.approx(0.5 + 6.25 * 0.05, abs=1e-5)
