import numpy as np
import pytest

from detectors.base import InputError
from detectors.calibration import BenignSample, DetectorCalibration, group_by_label
from detectors.reservoir import Kept, Reservoir, merged


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


# --- merging ------------------------------------------------------------------------------------------


def filled(capacity: int, numbers: range, seed: int) -> Kept:
    reservoir = Reservoir(capacity, seed)
    reservoir.add(rows(numbers))
    return reservoir.kept()


def test_a_merge_is_a_uniform_sample_of_all() -> None:
    """Streams of 8, 20 and 72 images, of which 8, 10 and 10 are kept: of 100 each is drawn 200 times in 2,000
    merges of 10, give or take five standard deviations, and so is every pair across the streams."""
    counts, pairs = np.zeros(100), 0
    for seed in range(2000):
        parts = [filled(10, range(8), seed), filled(10, range(8, 28), seed + 9000)]
        found = merged([*parts, filled(10, range(28, 100), seed + 19_000)], 10, seed + 29_000)
        assert (found.seen, len(found.sample)) == (100, 10)
        counts[found.sample.predicted] += 1
        small = found.sample.predicted < 28
        pairs += int(small.sum() * (~small).sum())
    assert counts.sum() == 20_000
    assert np.abs(counts - 200).max() < 5 * np.sqrt(2000 * 0.1 * 0.9)
    assert pairs / 2000 == pytest.approx(10 * 9 * 28 * 72 / (100 * 99), rel=0.02)  # hypergeometric


def test_what_a_merge_takes_from_each_is_hypergeometric() -> None:
    """Of 30 and 70 images, 10: the first gives 3 in the mean, with variance 10 · 0.3 · 0.7 · 90/99."""
    parts = [filled(10, range(30), 1), filled(10, range(30, 100), 2)]
    taken = np.array([(merged(parts, 10, seed).sample.predicted < 30).sum() for seed in range(3000)])
    assert taken.mean() == pytest.approx(3.0, abs=5 * np.sqrt(1.909 / 3000))
    assert taken.var() == pytest.approx(10 * 0.3 * 0.7 * 90 / 99, rel=0.12)


def test_a_merge_of_streams_that_kept_all_keeps_all_there_is_room_for() -> None:
    parts = [filled(10, range(4), 0), filled(10, range(4, 9), 0)]
    assert sorted(merged(parts, 100).sample.predicted) == list(range(9))
    assert len(merged(parts, 6).sample) == 6


def test_a_merge_of_merges_is_still_uniform() -> None:
    counts = np.zeros(60)
    for seed in range(2000):
        parts = [filled(10, range(20 * part, 20 * part + 20), 3 * seed + part) for part in range(3)]
        counts[merged([merged(parts[:2], 10, seed), parts[2]], 10, seed + 5000).sample.predicted] += 1
    assert np.abs(counts - 2000 / 6).max() < 5 * np.sqrt(2000 * (1 / 6) * (5 / 6))


def test_rows_stay_together_in_a_merge() -> None:
    found = merged([filled(7, range(50), 1), filled(7, range(50, 99), 2)], 7).sample
    assert (found.evidence["a"] == np.stack([found.predicted, -found.predicted], 1)).all()


def test_the_shortest_full_sample_bounds_a_merge() -> None:
    assert len(merged([filled(5, range(50), 1), filled(20, range(50, 99), 2)], 20).sample) == 5


def test_nothing_cannot_be_merged() -> None:
    with pytest.raises(InputError, match="nothing to merge"):
        merged([Reservoir(3).kept()], 3)


def test_a_stream_that_saw_nothing_changes_nothing() -> None:
    one = filled(5, range(50), 1)
    found = merged([one, Reservoir(3).kept()], 5)
    assert sorted(found.sample.predicted) == sorted(one.sample.predicted)


def test_a_threshold_of_merged_reservoirs_is_like_that_of_one_that_saw_all() -> None:
    """A label's limit over 200 draws: the same mean, within four standard errors, and the same spread. Scores
    differ by label, and the replicas see unlike shares of the traffic."""
    random = np.random.default_rng(0)
    predicted = random.integers(2, size=600)
    images = BenignSample(predicted, None, {"a": (random.normal(size=600) + predicted)[:, None]})

    def limit(kept: Kept) -> float:
        scores, labels = kept.sample.evidence["a"][:, 0], kept.sample.predicted
        calibration = DetectorCalibration(
            "a", {}, {}, 0.1, group_by_label(scores, labels, 0.1), np.sort(scores)
        )
        return float(calibration.thresholds(2)[1])

    alone, together = [], []
    for seed in range(200):
        order = np.random.default_rng(seed).permutation(600)
        one = Reservoir(80, seed)
        one.add(images.take(order))
        alone.append(limit(one.kept()))
        parts = [Reservoir(80, seed + 1000 * number) for number in range(3)]
        for part, share in zip(parts, np.split(order, [70, 220]), strict=True):
            part.add(images.take(share))
        together.append(limit(merged([part.kept() for part in parts], 80, seed)))
    error = np.sqrt((np.var(alone) + np.var(together)) / 200)
    assert abs(np.mean(alone) - np.mean(together)) < 4 * error
    assert np.std(together) == pytest.approx(np.std(alone), rel=0.25)
