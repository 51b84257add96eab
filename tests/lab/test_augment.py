import torch
from torch.nn import functional as F

from lab.augment import augment


def seeded(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def random_images(count: int, height: int = 5, width: int = 4) -> torch.Tensor:
    return torch.randint(1, 256, (count, 3, height, width), dtype=torch.uint8, generator=seeded())


def test_nothing_asked_nothing_done() -> None:
    images = random_images(6)
    assert torch.equal(augment(images, 0, False, seeded()), images)


def test_each_crop_is_a_window_of_the_padded_image() -> None:
    images = random_images(64)
    cropped = augment(images, 1, False, seeded(3))
    assert (cropped.shape, cropped.dtype) == (images.shape, torch.uint8)
    padded = F.pad(images, (1, 1, 1, 1))
    seen = set()
    for image, original in zip(cropped, padded, strict=True):
        places = [
            (y, x)
            for y in range(3)
            for x in range(3)
            if torch.equal(image, original[:, y : y + 5, x : x + 4])
        ]
        assert len(places) == 1
        seen.add(places[0])
    assert len(seen) == 9  # every offset occurs


def test_flip_mirrors_about_half() -> None:
    images = random_images(200)
    flipped = augment(images, 0, True, seeded(3))
    mirrored = (flipped == images.flip(-1)).flatten(1).all(1)
    kept = (flipped == images).flatten(1).all(1)
    assert (mirrored ^ kept).all()
    assert 70 < mirrored.sum() < 130


def test_the_generator_decides() -> None:
    images = random_images(8)
    first = augment(images, 2, True, seeded(1))
    assert torch.equal(first, augment(images, 2, True, seeded(1)))
    assert not torch.equal(first, augment(images, 2, True, seeded(2)))
