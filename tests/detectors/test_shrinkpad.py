"""ShrinkPad's five places, by hand."""

import pytest
import torch
from torch import Tensor, nn

from detectors.shrinkpad import PLACES, shrink_and_pad, shrinkpad
from tests.detectors.classifiers import Network

# Four of 32 pixels are free: what lies above, below, left and right of the image.
MARGINS = {
    "middle": (2, 2, 2, 2), "top left": (0, 4, 0, 4), "top right": (0, 4, 4, 0),
    "bottom left": (4, 0, 0, 4), "bottom right": (4, 0, 4, 0),
}  # fmt: skip


@pytest.mark.parametrize("place", PLACES)
def test_a_white_image_becomes_a_white_square_on_black(place: str) -> None:
    padded = shrink_and_pad(torch.ones(1, 1, 32, 32), PLACES[place])[0, 0]
    above, below, left, right = MARGINS[place]
    expected = torch.zeros(32, 32)
    expected[above : 32 - below, left : 32 - right] = 1.0
    torch.testing.assert_close(padded, expected)


def test_what_is_shown_is_smaller_not_cut_off() -> None:
    """A ramp keeps its ends: pixel centres map linearly from 32 to 28."""
    ramp = torch.linspace(0, 1, 32).expand(1, 1, 32, 32)
    shrunk = shrink_and_pad(ramp, PLACES["top left"])[0, 0, 0, :28]
    assert (shrunk.diff() > 0).all()
    middle = [((i + 0.5) * 32 / 28 - 0.5) / 31 for i in range(4, 24)]
    assert shrunk[4:24].tolist() == pytest.approx(middle, abs=0.005)


@pytest.mark.parametrize("shape", [(2, 3, 32, 32), (1, 1, 28, 28), (2, 3, 5, 9), (1, 1, 1, 1)])
def test_shape_and_range(shape: tuple[int, ...]) -> None:
    images = torch.rand(shape, generator=torch.Generator().manual_seed(1))
    for place in PLACES.values():
        padded = shrink_and_pad(images, place)
        assert padded.shape == images.shape
        assert padded.min() >= 0
        assert padded.max() <= 1


def test_a_trigger_that_must_lie_still_is_found() -> None:
    class Corner(nn.Module):
        """Class 1 where the very last pixel is white."""

        def forward(self, images: Tensor) -> Tensor:
            lit = (images[..., -1, -1].mean(1) > 0.9).float()
            return torch.stack([1 - lit, lit], 1) * 20

    detector = shrinkpad(Network(Corner(), 2))
    assert detector.name == "shrinkpad"
    benign = torch.full((3, 3, 32, 32), 0.4)
    triggered = benign.clone()
    triggered[..., -1, -1] = 1.0
    assert detector.measure(benign).mean(1).max() < 0.01
    assert detector.measure(triggered).mean(1).min() > 0.75
