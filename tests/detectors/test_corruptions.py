"""The fifteen corruptions against plain loops, Pillow and colorsys, and what all of them must keep."""

import colorsys
import io
import math

import numpy as np
import pytest
import torch
from PIL import Image
from torch import Tensor

from detectors import patterns
from detectors.corruptions import CORRUPTIONS, SEVERITIES, corruption
from detectors.jpeg import cosine_basis, jpeg, quantisation

LEVELS = range(1, SEVERITIES + 1)


def scene(count: int = 2, channels: int = 3, height: int = 32, width: int = 32) -> Tensor:
    """Smooth shapes with an edge and some texture, each image different."""
    rows, columns = torch.meshgrid(torch.linspace(0, 1, height), torch.linspace(0, 1, width), indexing="ij")
    images = []
    for number in range(count * channels):
        waves = 0.5 + 0.25 * torch.sin(7 * rows + number) + 0.15 * torch.cos(19 * columns * rows + 2 * number)
        images.append(torch.where(rows + columns > 0.6 + 0.1 * number % 0.7, waves, 0.4 * waves))
    return torch.stack(images).view(count, channels, height, width).clamp(0, 1)


def test_they_are_the_papers_fifteen() -> None:
    assert list(CORRUPTIONS) == [
        "gaussian_noise", "shot_noise", "impulse_noise", "defocus_blur", "glass_blur", "motion_blur",
        "zoom_blur", "snow", "frost", "fog", "brightness", "contrast", "elastic_transform", "pixelate",
        "jpeg_compression",
    ]  # fmt: skip


@pytest.mark.parametrize("name", CORRUPTIONS)
@pytest.mark.parametrize("shape", [(3, 32, 32), (1, 28, 28), (2, 9, 17), (1, 2, 2)])
def test_shape_range_and_company(name: str, shape: tuple[int, int, int]) -> None:
    """In [0, 1], the same each time, whoever else is in the batch, and the input is left alone."""
    images = scene(3, *shape)
    before = images.clone()
    for severity in LEVELS:
        damaged = corruption(name, severity)(images)
        assert damaged.shape == images.shape
        assert damaged.isfinite().all()
        assert damaged.min() >= 0
        assert damaged.max() <= 1
        assert torch.equal(damaged, corruption(name, severity)(images))
        torch.testing.assert_close(corruption(name, severity)(images[1:2]), damaged[1:2])
    assert torch.equal(images, before)


@pytest.mark.parametrize(
    "name", sorted(set(CORRUPTIONS) - {"elastic_transform", "glass_blur", "frost", "snow"})
)
def test_the_highest_severity_changes_more_than_the_lowest(name: str) -> None:
    """The others are not ordered by this measure in the original either: strengths trade off."""
    images = scene(4)
    least, most = ((corruption(name, s)(images) - images).abs().mean() for s in (1, SEVERITIES))
    assert 0 < least < most


def test_each_severity_starts_from_the_clean_image() -> None:
    """Contrast keeps 0.75 and then 0.5 of the distance to the mean; accumulated it would be 0.375."""
    image = scene(1)
    means = image.mean((2, 3), keepdim=True)
    torch.testing.assert_close(corruption("contrast", 2)(image), means + 0.5 * (image - means))


def test_noise_has_the_strength_it_says() -> None:
    grey = torch.full((1, 3, 64, 64), 0.5)
    assert (corruption("gaussian_noise", 3)(grey) - grey).std().item() == pytest.approx(0.08, rel=0.05)
    assert (corruption("shot_noise", 5)(grey) - grey).std().item() == pytest.approx(0.1, rel=0.05)
    changed = corruption("impulse_noise", 5)(grey)
    assert (changed != 0.5).float().mean().item() == pytest.approx(0.07, abs=0.01)
    assert set(changed.unique().tolist()) == {0.0, 0.5, 1.0}
    black = torch.zeros(1, 1, 8, 8)
    assert torch.equal(corruption("shot_noise", 5)(black), black)  # no light, no photons


def test_brightness_is_value_of_hsv() -> None:
    image = scene(1, 3, 4, 4)
    image[0, :, 0, 0] = 0.0
    damaged = corruption("brightness", 4)(image)
    for row in range(4):
        for column in range(4):
            hue, saturation, value = colorsys.rgb_to_hsv(*image[0, :, row, column].tolist())
            expected = colorsys.hsv_to_rgb(hue, saturation, min(1.0, value + 0.2))
            assert damaged[0, :, row, column].tolist() == pytest.approx(expected, abs=1e-5)


def test_smoothing_by_plain_loops() -> None:
    image = scene(1, 2, 5, 6)
    kernel = patterns.motion_kernel(2, 1.5, 30.0)
    assert kernel.sum().item() == pytest.approx(1.0)
    smoothed = patterns.smooth(image, kernel)
    for channel in range(2):
        for row in range(5):
            for column in range(6):
                total = 0.0
                for y in range(-2, 3):
                    for x in range(-2, 3):
                        there = min(4, max(0, row + y)), min(5, max(0, column + x))
                        total += kernel[y + 2, x + 2].item() * image[0, channel, there[0], there[1]].item()
                assert smoothed[0, channel, row, column].item() == pytest.approx(total, abs=1e-5)


def test_kernels_by_hand() -> None:
    sharp = patterns.disk(0.3, 1e-3)  # nothing but the middle
    assert sharp[2, 2].item() == pytest.approx(1.0)
    wide = patterns.disk(1.5, 1e-3)  # 3×3: the diagonal is √2 away
    assert wide.shape == (7, 7)
    assert wide[2:5, 2:5].flatten().tolist() == pytest.approx([1 / 9] * 9)
    trail = patterns.motion_kernel(3, 2.0, 0.0)
    assert trail[3, :3].sum() == 0  # half a Gaussian: it goes one way
    assert (trail[3, 4] / trail[3, 3]).item() == pytest.approx(math.exp(-1 / 8))


def test_zoom_reads_the_middle() -> None:
    """Twice as large: pixel 0 of 4 lies at −0.75 / 2 of the half-width, which is place 0.75."""
    line = torch.tensor([0.0, 1.0, 2.0, 3.0]).expand(1, 1, 4, 4)
    assert patterns.zoom(line, 2.0)[0, 0, 0].tolist() == pytest.approx([0.75, 1.25, 1.75, 2.25])
    assert torch.allclose(patterns.zoom(line, 1.0), line)


def test_glass_only_exchanges_neighbours() -> None:
    order = patterns.shuffle_order((9, 7), 1, 2, seed=1)
    assert sorted(order.tolist()) == list(range(63))
    assert order.tolist() != list(range(63))


def test_area_weights_against_pillow() -> None:
    image = np.random.default_rng(1).random((12, 12)).astype(np.float32)
    weights = patterns.area_weights(12, 4)
    ours = (weights @ torch.from_numpy(image) @ weights.T).numpy()
    theirs = np.asarray(Image.fromarray(image).resize((4, 4), Image.Resampling.BOX))
    np.testing.assert_allclose(ours, theirs, atol=1e-6)
    assert patterns.area_weights(32, 20).sum(1).tolist() == pytest.approx([1.0] * 20)
    # From 3 to 2: one and a half pixels each.
    assert patterns.area_weights(3, 2).flatten().tolist() == pytest.approx([2 / 3, 1 / 3, 0, 0, 1 / 3, 2 / 3])


def test_elastic_without_displacement_is_the_image() -> None:
    grid = patterns.elastic_grid((8, 10), 0.0, 0.0, 0.0, 1)
    image = scene(1, 1, 8, 10)
    same = torch.nn.functional.grid_sample(image, grid, align_corners=False)
    torch.testing.assert_close(same, image, atol=1e-4, rtol=0)


@pytest.mark.parametrize("size", [(32, 32), (28, 28), (5, 40), (1, 1)])
def test_clouds(size: tuple[int, int]) -> None:
    for cloud in (patterns.plasma(size, 2.0, 1), patterns.frost_texture(size, 1)):
        assert cloud.shape == size
        assert cloud.min() >= 0
        assert cloud.max() <= 1


def test_a_cloud_with_more_decay_is_smoother() -> None:
    rough, calm = (patterns.plasma((64, 64), decay, 1).diff(dim=1).abs().mean() for decay in (1.2, 3.0))
    assert calm < rough / 2


@pytest.mark.parametrize("quality", [80, 50, 40])
def test_jpeg_against_pillow(quality: int) -> None:
    """The same loss as the real codec's, up to its rounding and colour interpolation."""
    image = scene(1)
    pixels = (image[0].permute(1, 2, 0) * 255).round().byte().numpy()
    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, "JPEG", quality=quality)
    theirs = torch.from_numpy(np.asarray(Image.open(buffer)).copy()).permute(2, 0, 1)[None] / 255
    clean = torch.from_numpy(pixels).permute(2, 0, 1)[None] / 255
    ours = jpeg(clean, quality)
    assert (ours - theirs).abs().mean() < 0.35 * (theirs - clean).abs().mean()


def test_jpeg_of_grey_against_pillow() -> None:
    pixels = (scene(1, 1, 24, 40)[0, 0] * 255).round().byte()
    buffer = io.BytesIO()
    Image.fromarray(pixels.numpy()).save(buffer, "JPEG", quality=50)
    theirs = np.asarray(Image.open(buffer)).astype(int)
    ours = (jpeg(pixels[None, None] / 255, 50)[0, 0] * 255).round().numpy().astype(int)
    off = np.abs(ours - theirs)
    assert (off <= 1).mean() > 0.9  # a block differs where a coefficient lay between two steps
    assert off.max() < 10


def test_quantisation_by_hand() -> None:
    """Quality 50 is the table itself; 80 is 40 % of it, rounded; 100 is all ones."""
    cpu = torch.device("cpu")
    assert quantisation(50, False, cpu)[0].tolist() == [16, 11, 10, 16, 24, 40, 51, 61]
    assert quantisation(80, False, cpu)[0, :3].tolist() == [6, 4, 4]
    assert quantisation(100, True, cpu).unique().tolist() == [1]
    assert torch.allclose(cosine_basis(8, cpu) @ cosine_basis(8, cpu).T, torch.eye(8), atol=1e-6)
