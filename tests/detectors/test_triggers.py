"""Triggers: in range, the same for every image and every call, and each changes what it should."""

import pytest
import torch

from detectors.triggers import TRIGGERS, blend, patch, warp

SHAPES = [(1, 28, 28), (3, 32, 32), (3, 20, 40), (1, 8, 8)]


@pytest.mark.parametrize("kind", TRIGGERS)
@pytest.mark.parametrize("shape", SHAPES)
def test_what_every_trigger_keeps(kind: str, shape: tuple[int, int, int]) -> None:
    images = torch.rand(5, *shape)
    before = images.clone()
    trigger = TRIGGERS[kind](shape, 3)
    triggered = trigger(images)
    assert torch.equal(images, before)
    assert triggered.shape == images.shape
    assert 0 <= triggered.min() <= triggered.max() <= 1
    assert torch.equal(triggered, TRIGGERS[kind](shape, 3)(images))
    assert torch.allclose(triggered[2:3], trigger(images[2:3]), atol=1e-6)
    assert (triggered - images).abs().amax((1, 2, 3)).min() > 0.05
    assert not torch.equal(triggered, TRIGGERS[kind](shape, 4)(images))


def test_a_patch_is_the_only_change() -> None:
    images = torch.full((2, 3, 32, 32), 0.5)
    changed = (patch((3, 32, 32), 0)(images) != images).all(1)
    rows, columns = changed[0].nonzero().unbind(1)
    assert changed[0].sum() == 16
    assert int(rows.max() - rows.min()) == int(columns.max() - columns.min()) == 3


def test_blending_is_a_weighted_sum() -> None:
    black, white = torch.zeros(1, 1, 8, 8), torch.ones(1, 1, 8, 8)
    trigger = blend((1, 8, 8), 0)
    assert torch.allclose(trigger(white) - trigger(black), torch.full_like(white, 0.8))
    assert trigger(black).max() <= 0.2


def test_a_warp_moves_pixels_and_invents_none() -> None:
    flat = torch.full((1, 1, 32, 32), 0.3)
    assert torch.allclose(warp((1, 32, 32), 0)(flat), flat)
    ramp = torch.linspace(0, 1, 32).expand(1, 1, 32, 32)
    moved = (warp((1, 32, 32), 0)(ramp) - ramp).abs() * 31  # in pixels
    assert 0.3 < float(moved.mean()) < 2
