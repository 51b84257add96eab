import pytest

from detectors.binomial import binomial_tail


@pytest.mark.parametrize(
    ("hits", "count", "chance", "expected"),
    [
        (0, 5, 0.3, 1.0),
        (2, 2, 0.5, 0.25),
        (1, 3, 0.1, 1 - 0.9**3),
        (3, 4, 0.2, 4 * 0.2**3 * 0.8 + 0.2**4),
        (1, 3, 0.0, 0.0),
        (3, 3, 1.0, 1.0),
    ],
)
def test_by_hand(hits: int, count: int, chance: float, expected: float) -> None:
    assert binomial_tail(hits, count, chance) == pytest.approx(expected, rel=1e-9)


def test_large_counts_neither_overflow_nor_vanish() -> None:
    assert binomial_tail(5000, 10_000, 0.5) == pytest.approx(0.504, abs=1e-3)
    assert 0 < binomial_tail(700, 10_000, 0.05) < 1e-16
