import numpy as np
import pytest

from detectors.base import InputError
from detectors.calibration import BenignSample
from detectors.reservoir import Reservoir


def rows(numbers: range) -> BenignSample:
    """Images whose prediction and evidence tell their number."""
    values = np.array(numbers, dtype=np.int64)
    return BenignSample(values, None, {"a": np.stack([values, -values], 1).astype(float)})


def test_keeps_everything_until_it_is_full() -> None:
    reservoir = Reservoir(5)
    reservoir.add(rows(range(2)))
    reservoir.add(rows(range(2, 4)))
    assert (len(reservoir), reservoir.seen) == (4, 4)
    sample = reservoir.sample()
    assert sample.predicted.tolist() == [0, 1, 2, 3]
    assert sample.evidence["a"].tolist() == [[0, 0], [1, -1], [2, -2], [3, -3]]
    assert sample.labels is None


def test_a_sample_is_a_copy() -> None:
    reservoir = Reservoir(2)
    reservoir.add(rows(range(2)))
    sample = reservoir.sample()
    reservoir.add(rows(range(100, 200)))
    assert sample.predicted.tolist() == [0, 1]


def test_rows_stay_together() -> None:
    reservoir = Reservoir(7)
    reservoir.add(rows(range(100)))
    sample = reservoir.sample()
    assert len(sample) == 7
    assert (sample.evidence["a"] == np.stack([sample.predicted, -sample.predicted], 1)).all()


def test_every_row_is_kept_with_the_same_chance() -> None:
    """10 of 40, in batches of 7: over 2,000 runs each row 500 times, give or take 5 standard deviations."""
    counts = np.zeros(40)
    for seed in range(2000):
        reservoir = Reservoir(10, seed)
        for start in range(0, 40, 7):
            reservoir.add(rows(range(start, min(40, start + 7))))
        counts[reservoir.sample().predicted] += 1
    assert counts.sum() == 20_000
    assert np.abs(counts - 500).max() < 5 * np.sqrt(2000 * 0.25 * 0.75)


def test_no_room_is_refused() -> None:
    with pytest.raises(InputError, match="at least one row"):
        Reservoir(0)


def test_empty() -> None:
    assert len(Reservoir(3).sample()) == 0
