"""DeepSweep's six transformations, by hand and by plain loops."""

import statistics

import pytest
import torch
from torch import Tensor

from detectors.deepsweep import (
    TRANSFORMATIONS,
    affine,
    bit_depth,
    deepsweep,
    gamma_compression,
    median,
    optical_distortion,
)
from tests.detectors.classifiers import Brightness, Network


def pictures(*shape: int) -> Tensor:
    return torch.rand(shape, generator=torch.Generator().manual_seed(1))


def test_median_by_plain_loops() -> None:
    image = pictures(1, 2, 5, 6)
    filtered = median(image)
    for channel in range(2):
        for row in range(5):
            for column in range(6):
                near = [
                    image[0, channel, min(4, max(0, row + y)), min(5, max(0, column + x))].item()
                    for y in (-1, 0, 1)
                    for x in (-1, 0, 1)
                ]
                assert filtered[0, channel, row, column].item() == pytest.approx(statistics.median(near))


def test_levels_by_hand() -> None:
    assert bit_depth(torch.tensor([0.0, 0.08, 0.5, 1.0])).tolist() == pytest.approx([0, 1 / 7, 4 / 7, 1])
    assert gamma_compression(torch.tensor([0.0, 0.25, 1.0])).tolist() == pytest.approx(
        [0, 0.25 ** (1 / 1.8), 1]
    )


def test_the_barrel_leaves_the_middle_and_pulls_the_rest_in() -> None:
    image = torch.zeros(1, 1, 33, 33)
    image[..., 16, 16] = 1.0  # the middle
    image[..., 16, 28] = 1.0  # 12 of 16.5 to the right: r = 0.727, read from r (1 + r²/4)
    seen = optical_distortion(image)[0, 0]
    assert seen[16, 16] == pytest.approx(1.0, abs=1e-4)
    radius = 0.727 / (1 + 0.25 * 0.727**2) * 1.01  # r' (1 + r'²/4) = 0.727 at about 0.649
    assert int(seen[16, 20:].argmax()) + 20 == round(16 + 16.5 * radius)


def test_the_affine_map_turns_shrinks_and_moves() -> None:
    white = affine(torch.ones(1, 1, 32, 32))[0, 0]
    assert 0.6 < white.mean() < 0.9  # 0.81 of the area is left, some of it moved out
    assert white[0, 0] == 0
    assert white[16, 16] == pytest.approx(1.0)


@pytest.mark.parametrize("name", TRANSFORMATIONS)
@pytest.mark.parametrize("shape", [(2, 3, 32, 32), (1, 1, 28, 28), (2, 3, 5, 9), (1, 1, 1, 1)])
def test_shape_range_and_company(name: str, shape: tuple[int, ...]) -> None:
    images, change = pictures(*shape), TRANSFORMATIONS[name]
    changed = change(images)
    assert changed.shape == images.shape
    assert changed.min() >= 0
    assert changed.max() <= 1
    torch.testing.assert_close(change(images[:1]), changed[:1])


def test_the_detector() -> None:
    detector = deepsweep(Network(Brightness(), 3))
    assert detector.name == "deepsweep"
    assert detector.settings() == {"changes": list(TRANSFORMATIONS)}
    assert detector.measure(pictures(2, 3, 32, 32)).shape == (2, 6)
