"""Every change keeps shape and range and repeats itself; what each does is worked out by hand."""

import pytest
import torch

from detectors import changes
from detectors.changes import (
    blur,
    border,
    flip,
    grey,
    median,
    middle,
    mix,
    move,
    noise,
    posterise,
    rotate,
    scale,
    shift,
    shrink,
    shrink_within,
    turn_over,
    warp,
)
from detectors.probes import PROBES


@pytest.mark.parametrize("probe", PROBES.values(), ids=lambda probe: probe.name)
@pytest.mark.parametrize("shape", [(2, 3, 32, 32), (1, 1, 28, 28), (2, 3, 5, 9), (1, 1, 1, 1)])
def test_probes_keep_shape_and_range_and_repeat_themselves(probe: object, shape: tuple[int, ...]) -> None:
    images = torch.rand(shape, generator=torch.Generator().manual_seed(1))
    before = images.clone()
    once, again = probe.apply(images), probe.apply(images)  # type: ignore[attr-defined]
    assert once.shape == images.shape
    assert once.min() >= 0
    assert once.max() <= 1 + 1e-6
    assert torch.equal(once, again)
    assert torch.equal(images, before)
    alone = probe.apply(images[:1])  # type: ignore[attr-defined]
    torch.testing.assert_close(alone, once[:1])


def test_places_by_hand() -> None:
    image = torch.zeros(1, 1, 16, 16)
    image[..., 8, 5] = 1.0
    assert flip(image)[0, 0, 8, 10] == 1
    assert turn_over(image)[0, 0, 7, 5] == 1
    assert shift(image)[0, 0, 9, 6] == 1
    assert move(image, -1)[0, 0, 6, 3] == 1
    quarter = rotate(image, 90)
    assert quarter.flatten().argmax().item() in (5 * 16 + 7, 10 * 16 + 8)
    # 8.5 − 8 and 5.5 − 8 from the middle become 0.4 and −2.0: the pixel's centre is at (8.4, 6.0).
    assert shrink_within(image).flatten().argmax().item() in (8 * 16 + 5, 8 * 16 + 6)


def test_a_warp_moves_pixels_by_what_it_says_on_average() -> None:
    """The images hold their own coordinates, so that each pixel tells where it came from."""
    rows = torch.arange(32.0).view(1, 1, 32, 1).expand(1, 1, 32, 32) / 31
    moved = (warp(rows, 1.0) - rows).abs().mean().item() * 31
    assert 0.5 < moved < 1.2
    torch.testing.assert_close(warp(rows, 0.0), rows, atol=1e-5, rtol=0)


def test_detail_by_hand() -> None:
    image = torch.zeros(1, 1, 16, 16)
    image[..., 8, 5] = 1.0
    kernel = torch.tensor([[1, 2, 1], [2, 4, 2], [1, 2, 1]]) / 16
    assert torch.equal(blur(image)[0, 0, 7:10, 4:7], kernel)
    assert median(image).max() == 0
    assert shrink(torch.full((1, 1, 8, 8), 0.3)).flatten().tolist() == pytest.approx([0.3] * 64)
    even = torch.full((1, 1, 28, 28), 0.5)
    assert noise(even).std().item() == pytest.approx(changes.NOISE, rel=0.1)
    torch.testing.assert_close(noise(even, 2.0) - even, 2 * (noise(even) - even), atol=1e-6, rtol=0)


def test_parts_by_hand() -> None:
    image = torch.zeros(1, 1, 8, 8)
    image[..., 0, 0] = 0.64
    assert border(image)[0, 0, 0].tolist() == pytest.approx([0.01] * 8)
    assert border(image)[0, 0, 1, 1:7].tolist() == [0] * 6
    assert middle(image)[0, 0, 2:6, 2:6].flatten().tolist() == pytest.approx([0.01] * 16)
    assert middle(image)[0, 0, 0, 0] == image[0, 0, 0, 0]
    mixed = mix(image)
    assert (mixed[0, 0, 0, 0].item(), mixed[0, 0, 7, 7].item()) == pytest.approx((0.32, 0.32))


def test_tones_by_hand() -> None:
    image = torch.tensor([0.1, 0.5, 0.9]).view(1, 3, 1, 1)
    assert scale(image, 3.0).flatten().tolist() == pytest.approx([0.3, 1, 1])
    assert changes.brighten(image).flatten().tolist() == pytest.approx([0.3, 0.7, 1])
    assert grey(image).flatten().tolist() == pytest.approx([0.5] * 3)
    assert posterise(image, 3).flatten().tolist() == pytest.approx([0, 0.5, 1])
