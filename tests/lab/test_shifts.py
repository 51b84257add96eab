import pytest
import torch

from lab.shifts import SHIFTS, darker, jpeg, noisy


def images(channels: int) -> torch.Tensor:
    """A smooth gradient, which JPEG hardly changes."""
    line = torch.linspace(20, 220, 16)
    return (line[None, :] / 2 + line[:, None] / 2).expand(3, channels, 16, 16).to(torch.uint8)


@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize("name", SHIFTS)
def test_shape_kind_and_repeatability(name: str, channels: int) -> None:
    before = images(channels)
    after = SHIFTS[name](before)
    assert (after.shape, after.dtype) == (before.shape, torch.uint8)
    assert not torch.equal(after, before)
    assert torch.equal(after, SHIFTS[name](before))
    assert torch.equal(before, images(channels))


def test_darker_by_hand() -> None:
    assert darker(torch.tensor([[[[0, 10, 100, 255]]]], dtype=torch.uint8), 0.6).flatten().tolist() == [
        0,
        6,
        60,
        153,
    ]


def test_noise_has_its_deviation_and_differs_between_images() -> None:
    grey = torch.full((20, 1, 32, 32), 128, dtype=torch.uint8)
    change = (noisy(grey, 0.08).float() - 128) / 255
    assert change.std().item() == pytest.approx(0.08, rel=0.05)
    assert not torch.equal(change[0], change[1])


def test_jpeg_stays_close_and_loses_more_at_less_quality() -> None:
    before = images(3)
    losses = [(jpeg(before, quality).float() - before.float()).abs().mean().item() for quality in (90, 20)]
    assert losses[0] < losses[1] < 20
