"""The occlusion map of a classifier that looks in one place."""

import torch
from torch import Tensor

from detectors.sensitivity import CELLS, occlusion_map
from tests.detectors.test_suggestion import Answering


def corner(images: Tensor) -> Tensor:
    """Log-odds 10 · (the lower right pixel) for class 1 of two."""
    value = 10 * images[:, 0, -1, -1]
    return torch.stack([torch.zeros_like(value), value], 1)


def test_what_counts_is_what_is_covered() -> None:
    image = torch.zeros(1, 32, 32)
    image[0, -1, -1] = 1.0
    found = occlusion_map(Answering(corner, 2), image, 1)
    expected = torch.zeros(CELLS, CELLS)
    expected[-1, -1] = 10 * (1 - 1 / 1024)  # the cover is the image's mean
    torch.testing.assert_close(found, expected)
    # For the other class covering it is a gain, and counts nothing.
    assert occlusion_map(Answering(corner, 2), image, 0).max() == 0


def test_every_pixel_is_covered_by_some_place() -> None:
    for shape in [(1, 32, 32), (3, 28, 28), (1, 9, 30), (3, 224, 224)]:
        seen: list[Tensor] = []

        def remember(images: Tensor, seen: list[Tensor] = seen) -> Tensor:
            seen.append(images)
            return torch.zeros(len(images), 2)

        image = torch.rand(shape)
        assert occlusion_map(Answering(remember, 2), image, 0).shape == (CELLS, CELLS)
        copies = seen[0]
        assert torch.equal(copies[0], image)
        assert (copies[1:] != image).any(0).all()


def test_answers_that_are_no_numbers_show_nothing() -> None:
    lost = Answering(lambda images: torch.full((len(images), 2), torch.nan), 2)
    assert occlusion_map(lost, torch.rand(1, 8, 8), 1).abs().max() == 0
