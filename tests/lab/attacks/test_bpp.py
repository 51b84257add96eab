import numpy as np
import pytest
import torch
from torch import Tensor

from lab.attacks.bpp import Bpp, dithered
from lab.data import ImageSet


def random_images(count: int, height: int = 6, width: int = 5) -> Tensor:
    generator = torch.Generator().manual_seed(1)
    return torch.randint(0, 256, (count, 2, height, width), dtype=torch.uint8, generator=generator)


def slowly_dithered(channel: np.ndarray, levels: int) -> np.ndarray:
    """Floyd and Steinberg's scheme as it is usually written down."""
    pixels = channel.astype(np.float64)
    height, width = pixels.shape
    for y in range(height):
        for x in range(width):
            old = pixels[y, x]
            new = min(max(round(old / 255 * (levels - 1)), 0), levels - 1) * 255 / (levels - 1)
            pixels[y, x] = new
            for down, right, share in [(0, 1, 7), (1, -1, 3), (1, 0, 5), (1, 1, 1)]:
                if y + down < height and 0 <= x + right < width:
                    pixels[y + down, x + right] += (old - new) * share / 16
    return pixels.round()


@pytest.mark.parametrize("levels", [2, 8, 20])
def test_dithering_against_a_loop(levels: int) -> None:
    images = random_images(3)
    expected = [[slowly_dithered(channel.numpy(), levels) for channel in image] for image in images]
    assert np.array_equal(dithered(images, levels).numpy(), np.array(expected).astype(np.uint8))


def test_plain_quantisation_by_hand() -> None:
    pixels = torch.tensor([0, 18, 19, 127, 128, 236, 237, 255], dtype=torch.uint8).view(1, 1, 1, 8)
    # Eight levels lie 255/7 = 36.43 apart, and 18.2 is half way to the second.
    assert Bpp(dither=False).apply(pixels).flatten().tolist() == [0, 0, 36, 109, 146, 219, 255, 255]


def test_dithering_keeps_the_mean_of_a_flat_picture() -> None:
    grey = torch.full((1, 1, 32, 32), 100, dtype=torch.uint8)
    triggered = Bpp().apply(grey)
    assert set(triggered.unique().tolist()) == {73, 109}
    assert abs(triggered.float().mean().item() - 100) < 1
    assert Bpp(dither=False).apply(grey).unique().tolist() == [109]


def test_no_image_changes_another() -> None:
    images = random_images(4)
    assert torch.equal(Bpp().apply(images)[2:3], Bpp().apply(images[2:3]))
    assert Bpp().apply(images[:0]).shape == (0, 2, 6, 5)


@pytest.mark.parametrize(("ratio", "covers"), [(1.0, 6), (0.0, 0)])
def test_negative_samples(ratio: float, covers: int) -> None:
    data = ImageSet(random_images(60), torch.arange(60) % 6, tuple("abcdef"))
    poisoned = Bpp(negatives=ratio).poison(data, target=3, rate=0.1, seed=4)
    assert (len(poisoned.triggered), len(poisoned.cover)) == (6, covers)
    assert torch.equal(poisoned.data.images[poisoned.triggered], Bpp().apply(data.images[poisoned.triggered]))
    errors = Bpp().apply(data.images).float() - data.images
    for place in poisoned.cover.tolist():
        noisy = (data.images[place] + errors).clamp(0, 255).to(torch.uint8)
        assert (poisoned.data.images[place] == noisy).flatten(1).all(1).any()
    keeps = torch.ones(60, dtype=torch.bool)
    keeps[poisoned.triggered] = False
    assert torch.equal(poisoned.data.labels[keeps], data.labels[keeps])
    assert (poisoned.data.labels[poisoned.triggered] == 3).all()
    keeps[poisoned.cover] = False
    assert torch.equal(poisoned.data.images[keeps], data.images[keeps])


@pytest.mark.parametrize("levels", [1, 256])
def test_levels_that_cannot_be(levels: int) -> None:
    with pytest.raises(ValueError, match=r"levels is 2\.\.255"):
        Bpp(levels=levels)
