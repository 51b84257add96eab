import pytest
import torch

from lab.attacks import ATTACKS
from lab.attacks.badnets import BadNets
from lab.attacks.blend import Blend


def test_badnets_patch_by_hand() -> None:
    grey = torch.full((1, 1, 6, 6), 100, dtype=torch.uint8)
    assert BadNets().apply(grey)[0, 0].tolist() == [
        [100, 100, 100, 100, 100, 100],
        [100, 100, 100, 100, 100, 100],
        [100, 100, 255, 0, 255, 100],
        [100, 100, 0, 255, 0, 100],
        [100, 100, 255, 0, 255, 100],
        [100, 100, 100, 100, 100, 100],
    ]


def test_badnets_stamps_every_image_and_channel() -> None:
    stamped = BadNets(size=2, margin=0).apply(torch.full((3, 2, 4, 5), 7, dtype=torch.uint8))
    assert (stamped[..., 2:, 3:] == torch.tensor([[255, 0], [0, 255]])).all()
    assert (stamped == 7).sum() == 3 * 2 * (20 - 4)


@pytest.mark.parametrize(("height", "width"), [(3, 9), (9, 3)])
def test_badnets_that_does_not_fit(height: int, width: int) -> None:
    BadNets().apply(torch.zeros(1, 3, 4, 4, dtype=torch.uint8))
    with pytest.raises(ValueError, match=f"3-pixel patch does not fit into {height}×{width}"):
        BadNets().apply(torch.zeros(1, 3, height, width, dtype=torch.uint8))


def test_blend_by_hand() -> None:
    pattern = torch.randint(0, 256, (1, 2, 2), generator=torch.Generator().manual_seed(666))
    images = torch.tensor([[0, 255], [100, 50]], dtype=torch.uint8).view(1, 1, 2, 2)
    blended = Blend(alpha=0.2).apply(images)[0, 0].tolist()
    (a, b), (c, d) = pattern[0].tolist()
    assert blended == [
        [round(0.2 * a), round(0.8 * 255 + 0.2 * b)],
        [round(0.8 * 100 + 0.2 * c), round(0.8 * 50 + 0.2 * d)],
    ]


def test_blend_at_its_ends() -> None:
    images = torch.randint(
        0, 256, (2, 3, 5, 5), dtype=torch.uint8, generator=torch.Generator().manual_seed(1)
    )
    assert torch.equal(Blend(alpha=0).apply(images), images)
    pattern = Blend(alpha=1).apply(images)
    assert torch.equal(pattern[0], pattern[1])  # one pattern for all images
    assert torch.equal(pattern, Blend(alpha=1).apply(255 - images))
    assert not torch.equal(pattern, Blend(alpha=1, seed=1).apply(images))


@pytest.mark.parametrize("name", sorted(ATTACKS))
def test_every_attack_keeps_its_promises(name: str) -> None:
    attack = ATTACKS[name]()
    images = torch.randint(
        0, 256, (4, 3, 8, 8), dtype=torch.uint8, generator=torch.Generator().manual_seed(0)
    )
    before = images.clone()
    triggered = attack.apply(images)
    assert attack.name == name
    assert (triggered.shape, triggered.dtype) == (images.shape, torch.uint8)
    assert torch.equal(images, before)
    assert torch.equal(triggered, ATTACKS[name]().apply(images))
    assert (triggered != images).flatten(1).any(1).all()
