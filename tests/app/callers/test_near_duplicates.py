import numpy as np
import pytest

from app.callers import near_duplicates
from app.callers.near_duplicates import MEMORY, NearDuplicates, signatures


def noise(count: int, seed: int = 0, side: int = 32) -> np.ndarray:
    """Blocky pictures (count, 3, side, side) float32, unlike each other."""
    blocks = np.random.default_rng(seed).random((count, 3, 4, 4), dtype=np.float32)
    return blocks.repeat(side // 4, axis=2).repeat(side // 4, axis=3)


def test_signatures_are_mean_brightness_by_cell() -> None:
    image = np.zeros((1, 3, 16, 24), dtype=np.float32)
    image[0, :, 0:2, 0:3] = 0.5  # the first of 8×8 cells of 2×3 pixels
    image[0, 0, 15, 23] = 0.9  # one pixel of six in the last, one channel of three
    (signature,) = signatures(image)
    assert signature[0] == pytest.approx(0.5)
    assert signature[-1] == pytest.approx(0.9 / 18)
    assert signature[1:-1].max() == 0


@pytest.mark.parametrize("shape", [(1, 1), (3, 5), (8, 8), (9, 31), (224, 224)])
def test_any_size_has_a_signature(shape: tuple[int, int]) -> None:
    assert np.allclose(signatures(np.full((2, 1, *shape), 0.25, dtype=np.float32)), 0.25)


def test_a_search_is_a_run_and_unlike_images_are_none() -> None:
    watch = NearDuplicates(run=8, distance=0.02)
    base = noise(1)[0]
    generator = np.random.default_rng(1)
    near, runs = [], []
    for _ in range(40):
        tried = base.copy()
        tried[:, -3:, -3:] = generator.random((3, 3, 3))  # a small trigger, and a little noise everywhere
        tried = np.clip(tried + generator.normal(0, 0.02, tried.shape), 0, 1).astype(np.float32)
        found, begins = watch.observe("attacker", signatures(tried[None]))
        near.append(found)
        runs.append(begins)
    assert near == [0] + [1] * 39
    assert [place for place, begins in enumerate(runs) if begins] == [8]  # told once
    assert watch.observe("benign", signatures(noise(200, seed=2))) == (0, False)


def test_a_run_ends_and_may_begin_again() -> None:
    watch = NearDuplicates(run=4, distance=0.02)
    same = signatures(noise(1).repeat(10, axis=0))
    assert watch.observe("a", same) == (9, True)
    assert watch.observe("a", signatures(noise(MEMORY, seed=3))) == (0, False)
    assert watch.observe("a", same) == (9, True)


def test_interleaved_images_do_not_hide_a_run() -> None:
    watch = NearDuplicates(run=8, distance=0.02)
    mixed = np.concatenate([noise(1), noise(1)] + [noise(1, seed=s) for s in (5, 6)])
    assert any(watch.observe("a", signatures(mixed))[1] for _ in range(8))


def test_callers_and_memory_are_kept_apart_and_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(near_duplicates, "MOST_CALLERS", 2)
    watch = NearDuplicates(run=4, distance=0.02)
    same = signatures(noise(1))
    assert [watch.observe(name, same)[0] for name in ("a", "b", "c", "a")] == [0, 0, 0, 0]
    assert list(watch._pasts) == ["c", "a"]
    assert sum(past.recent.nbytes for past in watch._pasts.values()) == 2 * MEMORY * 64 * 4
