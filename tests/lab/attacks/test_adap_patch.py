import pytest
import torch
from torch import Tensor

from lab.attacks.adap_patch import AdapPatch
from lab.data import ImageSet


def random_images(count: int, height: int = 8, width: int = 10) -> Tensor:
    generator = torch.Generator().manual_seed(1)
    return torch.randint(1, 255, (count, 3, height, width), dtype=torch.uint8, generator=generator)


SMALL = AdapPatch(size=2, margin=1)
CORNERS = [(1, 1), (1, 7), (5, 1), (5, 7)]  # of 8×10 pixels


def test_the_attack_stamps_the_first_two_patches() -> None:
    images = random_images(3)
    stamped = SMALL.apply(images)
    changed = (stamped != images).any(0).any(0)
    expected = torch.zeros(8, 10, dtype=torch.bool)
    expected[1:3, 1:3] = expected[1:3, 7:9] = True
    assert torch.equal(changed, expected)
    patterns, _ = SMALL.patches(images.shape[1:])
    assert torch.equal(stamped[0][:, expected].float(), patterns[:, expected])
    assert set(patterns.unique().tolist()) == {0, 255}


def test_each_training_image_carries_one_patch_with_its_opacity() -> None:
    data = ImageSet(random_images(100), torch.arange(100) % 5, tuple("abcde"))
    poisoned = SMALL.poison(data, target=2, rate=0.2, seed=3)
    assert (len(poisoned.triggered), len(poisoned.cover)) == (20, 40)
    touched = torch.cat([poisoned.triggered, poisoned.cover])
    assert len(touched.unique()) == 60
    patterns, _ = SMALL.patches(data.images.shape[1:])
    seen = []
    for place in touched.tolist():
        before, after = data.images[place].float(), poisoned.data.images[place]
        fits = []
        for number, (row, column) in enumerate(CORNERS):
            expected = before.clone()
            window = (slice(None), slice(row, row + 2), slice(column, column + 2))
            share = (0.5, 0.5, 0.2, 0.3)[number]
            expected[window] = (1 - share) * before[window] + share * patterns[window]
            if (expected - after).abs().max() <= 0.501:
                fits.append(number)
        assert len(fits) == 1
        seen += fits
    assert min(seen.count(number) for number in range(4)) > 5
    keeps = torch.ones(100, dtype=torch.bool)
    keeps[poisoned.triggered] = False
    assert torch.equal(poisoned.data.labels[keeps], data.labels[keeps])
    assert (poisoned.data.labels[poisoned.triggered] == 2).all()
    keeps[poisoned.cover] = False
    assert torch.equal(poisoned.data.images[keeps], data.images[keeps])


def test_what_cannot_be() -> None:
    with pytest.raises(ValueError, match="four 4-pixel patches do not fit into 8×10"):
        AdapPatch(size=4).apply(random_images(1))
    with pytest.raises(ValueError, match="alphas are four opacities"):
        AdapPatch(alphas=(0.5,))
    with pytest.raises(ValueError, match="test_patches are among"):
        AdapPatch(test_patches=(4,))
