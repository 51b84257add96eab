"""Padding to few batch sizes: which sizes, and that no padded row is ever read."""

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from detectors.amplification import Copies
from detectors.buckets import bucket, pad_images, pad_rows
from detectors.fork import Fork
from tests.detectors.networks import distance, one_thread  # noqa: F401  (a fixture)
from tests.detectors.test_fork import hand_made, images, plain

ORDER = ["bn1", "bn2", "bn3"]


def test_sizes_by_hand() -> None:
    assert [bucket(rows) for rows in range(1, 14)] == [1, 2, 3, 4, 6, 6, 8, 8, 12, 12, 12, 12, 16]
    assert [bucket(rows) for rows in (17, 24, 25, 33, 64, 65)] == [24, 24, 32, 48, 64, 96]


@given(st.integers(1, 5000))
def test_a_bucket_holds_the_batch_wastes_little_and_is_its_own_bucket(rows: int) -> None:
    size = bucket(rows)
    assert rows <= size <= 1.5 * rows
    assert bucket(size) == size
    assert bucket(rows + 1) >= size


def test_padding_repeats_the_last() -> None:
    assert pad_rows(torch.tensor([4, 2, 0, 1, 7])).tolist() == [4, 2, 0, 1, 7, 7]
    x = images(5)
    assert torch.equal(pad_images(x), torch.cat([x, x[4:]]))
    assert pad_images(x[:4]).data_ptr() == x.data_ptr()


@pytest.mark.parametrize("batch", [1, 2, 5, 7, 9])
def test_bucketed_equals_unbucketed(batch: int) -> None:
    network, x = hand_made(plain), images(batch)
    copies = Copies(network, 1.5, [3, 1], ORDER)
    fork = Fork(network, 1.5, [3, 1], ORDER, images(2), bucketed=True)
    for along in ([], [1], [0, 1]):
        (logits, forks), (expected, originals) = fork.base(x, along), copies.base(x)
        assert logits.shape == (batch, 4)
        torch.testing.assert_close(logits, expected, rtol=1e-4, atol=1e-4)
        everything = torch.arange(batch - 1, -1, -1)
        for which in ([0, 1], [1, 0], [1]):
            for rows in (None, everything, everything[: (batch + 1) // 2]):
                found = fork.variants(forks, which, rows)
                torch.testing.assert_close(
                    found, copies.variants(originals, which, rows), rtol=1e-4, atol=1e-4
                )


def test_a_padded_row_that_overflows_is_not_looked_at() -> None:
    """float16: the last image overflows, and so do the rows that repeat it; each is computed again once."""
    network, x = hand_made(plain), images(5)
    bright = torch.cat([x[:4], 1e6 * x[4:]])
    half = Fork(network, 10.0, [2, 3], ORDER, x, dtype=torch.float16, bucketed=True)
    exact = Fork(network, 10.0, [2, 3], ORDER, x)
    for along in ([], [0, 1]):
        (logits, forks), (expected, originals) = half.base(bright, along), exact.base(bright)
        torch.testing.assert_close(logits[4], expected[4], rtol=1e-5, atol=0)
        assert distance(logits[:4], expected[:4]) < 0.05
        found, wanted = half.variants(forks, [1, 0]), exact.variants(originals, [1, 0])
        assert found.shape == (2, 5, 4)
        torch.testing.assert_close(found[:, 4], wanted[:, 4], rtol=1e-5, atol=0)
