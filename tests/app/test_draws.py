"""The lot of an image: its own, always the same, and nobody's to choose."""

import numpy as np
import torch

from app.draws import draws, new_secret


def images(count: int, seed: int = 0) -> torch.Tensor:
    return torch.rand(count, 1, 8, 8, generator=torch.Generator().manual_seed(seed))


def test_the_same_pixels_get_the_same_number_wherever_they_stand_in_a_batch() -> None:
    secret, batch = new_secret(), images(6)
    numbers = draws(batch, secret)
    assert torch.equal(draws(batch.flip(0), secret), numbers.flip(0))
    assert torch.equal(draws(batch[2:3], secret), numbers[2:3])
    assert len(set(numbers.tolist())) == 6


def test_another_secret_or_another_pixel_is_another_number() -> None:
    secret, batch = new_secret(), images(1)
    changed = batch.clone()
    changed[0, 0, 0, 0] += 1 / 255
    numbers = {draws(batch, secret).item(), draws(changed, secret).item(), draws(batch, new_secret()).item()}
    assert len(numbers) == 3


def test_numbers_are_uniform_below_one() -> None:
    numbers = np.sort(draws(images(2000), "ab" * 32).numpy())
    assert numbers[0] >= 0
    assert numbers[-1] < 1
    distance = np.abs(numbers - (np.arange(2000) + 0.5) / 2000).max()
    assert distance < 1.95 / np.sqrt(2000)  # Kolmogorov and Smirnov at 0.1 %
