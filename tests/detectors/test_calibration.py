"""The false-positive budget is kept, whatever the scores look like."""

import math
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from detectors.base import CalibrationError, Fit, Floats, Integers, Stages
from detectors.calibration import (
    BenignSample,
    DetectorCalibration,
    calibrate,
    conformal_threshold,
    cross_scores,
    images_needed,
    p_values,
    smallest_alpha,
)


class Plain:
    """A detector whose evidence is its score; `fit` remembers what it was shown."""

    name = "plain"

    def __init__(self) -> None:
        self.seen: list[Floats] = []

    def settings(self) -> dict[str, object]:
        return {"colour": "blue"}

    def fit(self, evidence: Floats, predicted: Integers, labels: Integers | None) -> Fit:
        self.seen.append(evidence[:, 0])
        return {"offset": float(evidence[:, 0].mean())}

    def score(self, evidence: Floats, predicted: Integers, fit: Fit) -> Floats:
        return evidence[:, 0]

    def plan(self, evidence: Floats, predicted: Integers, fit: Fit, thresholds: Floats) -> Stages:
        assert len(thresholds) == len(evidence)
        return [[0]]


def sample_of(scores: Floats, predicted: Integers | None = None) -> BenignSample:
    labels = np.zeros(len(scores), dtype=np.int64) if predicted is None else predicted
    return BenignSample(labels, None, {"plain": scores[:, None]})


def calibrated(
    scores: Floats, alpha: float, predicted: Integers | None = None, by: str = "class"
) -> DetectorCalibration:
    return calibrate(Plain(), sample_of(scores, predicted), alpha, by)  # type: ignore[arg-type]


def test_p_values_by_hand() -> None:
    benign = np.array([0.1, 0.2, 0.2, 0.9])
    # 0.2: three benign scores are at least as high: (1 + 3) / 5. Above all: 1 / 5. Below all: 5 / 5.
    assert p_values(benign, np.array([0.2, 0.95, 0.0, 0.9])).tolist() == [0.8, 0.2, 1.0, 0.4]


def test_a_score_that_is_not_a_number_is_the_most_suspicious() -> None:
    assert p_values(np.array([0.1, 0.2, 0.3]), np.array([np.nan])).tolist() == [0.25]


def test_thresholds_by_hand() -> None:
    benign = np.arange(1.0, 100.0)  # 1..99: α = 1 % allows no score at or above, α = 5 % the 5th largest
    assert conformal_threshold(benign, 0.01) == 99.0
    assert conformal_threshold(benign, 0.05) == 95.0
    assert conformal_threshold(benign[:98], 0.01) == math.inf
    assert conformal_threshold(np.array([]), 0.5) == math.inf


@given(
    st.lists(st.sampled_from([0.0, 0.2, 0.4, 1.0]) | st.floats(0, 1), min_size=1, max_size=60),
    st.floats(0.005, 0.9),
)
@settings(max_examples=300, deadline=None)
def test_above_the_threshold_says_the_same_as_p_at_most_alpha(values: list[float], alpha: float) -> None:
    benign = np.sort(np.array(values))
    candidates = np.unique(np.concatenate([benign, benign + 1e-9, [-1.0, 2.0]]))
    by_p = p_values(benign, candidates) <= alpha + 1e-12
    assert (candidates > conformal_threshold(benign, alpha)).tolist() == by_p.tolist()


def test_the_smallest_budget_and_the_fewest_images() -> None:
    assert smallest_alpha(99) == 0.01
    assert [images_needed(a) for a in (0.01, 0.005, 0.05, 0.1, 0.02, 0.5)] == [99, 199, 19, 9, 49, 1]


def test_too_few_images_are_refused_with_the_number_that_would_do() -> None:
    with pytest.raises(CalibrationError, match="at least 99 images"):
        calibrated(np.random.default_rng(0).random(98), 0.01)
    assert calibrated(np.random.default_rng(0).random(99), 0.01).alpha == 0.01


@pytest.mark.parametrize("alpha", [0.0, 1.0, -0.1, float("nan")])
def test_a_budget_outside_its_range_is_refused(alpha: float) -> None:
    with pytest.raises(CalibrationError, match="alpha"):
        calibrated(np.random.default_rng(0).random(300), alpha)


def test_scores_that_are_not_numbers_are_refused_with_a_sentence() -> None:
    scores = np.random.default_rng(0).random(300)
    scores[7] = np.nan
    with pytest.raises(CalibrationError, match="1 of 300"):
        calibrated(scores, 0.01)


def test_cross_fitting_never_scores_an_image_by_a_fit_that_saw_it() -> None:
    class Memory(Plain):
        def score(self, evidence: Floats, predicted: Integers, fit: Fit) -> Floats:
            return np.isin(evidence[:, 0], self.seen[-1]).astype(np.float64)

    detector = Memory()
    scores = cross_scores(detector, sample_of(np.arange(101.0)))  # type: ignore[arg-type]
    assert scores.max() == 0.0
    assert sorted(map(len, detector.seen)) == [80, 81, 81, 81, 81]


def test_a_level_that_will_be_rejected_as_a_whole_counts_as_tied() -> None:
    """Two levels in units that every fold learns: 30 % high ones at a budget of 20 % must all pass."""

    class Centred(Plain):
        def score(self, evidence: Floats, predicted: Integers, fit: Fit) -> Floats:
            return evidence[:, 0] - fit["offset"]

    detector, generator = Centred(), np.random.default_rng(0)
    for _ in range(20):
        sample = sample_of((generator.random(100) < 0.3).astype(np.float64))
        part = calibrate(detector, sample, 0.2)  # type: ignore[arg-type]
        assert 1 - part.fit["offset"] <= part.thresholds(1)[0] or sample.evidence["plain"].sum() <= 20


def test_one_image_alone_can_be_cross_scored() -> None:
    assert cross_scores(Plain(), sample_of(np.array([0.5]))).tolist() == [0.5]  # type: ignore[arg-type]


def test_a_label_that_stays_too_small_joins_the_most_similar_group() -> None:
    predicted = np.repeat([0, 1, 2], [50, 50, 3])
    scores = np.concatenate([np.full(50, 0.2), np.full(50, 0.6), np.full(3, 0.9)])
    part = calibrated(scores, 0.05, predicted)
    assert [group.labels for group in part.groups] == [(0,), (1, 2)]
    assert part.thresholds(3).tolist() == [0.2, 0.9, 0.9]  # ⌊0.05 · 53⌋ = 2: the second largest of 52


def test_a_label_that_was_never_seen_is_judged_by_all_scores() -> None:
    predicted = np.repeat([0, 1], [50, 53])
    scores = np.concatenate([np.full(50, 0.2), np.full(53, 0.6)])
    part = calibrated(scores, 0.05, predicted)
    assert part.thresholds(3).tolist() == [0.2, 0.6, 0.6]
    assert part.p_value(2, 0.95) == 1 / 104


def test_a_marginal_calibration_has_one_threshold() -> None:
    predicted = np.repeat([0, 1], 50)
    part = calibrated(np.where(predicted == 0, 0.2, 0.9) + np.arange(100) / 1e4, 0.1, predicted, "marginal")
    assert len(set(part.thresholds(2).tolist())) == 1


def test_randomised_ties_reject_the_stated_share_of_a_tied_score() -> None:
    part = replace(calibrated(np.repeat([0.5, 1.0], [50, 50]), 0.1), ties="randomised")
    assert part.thresholds(1).tolist() == [1.0]
    (share,) = part.tie_probabilities(1)
    assert share == pytest.approx(10 / 51)
    assert part.p_value(0, 1.0, draw=share - 0.01) < 0.1 < part.p_value(0, 1.0, draw=share + 0.01)
    assert part.p_value(0, 1.0, draw=0.0) == 0.0
    conservative = replace(part, ties="conservative")
    assert conservative.p_value(0, 1.0, draw=0.0) == 51 / 101
    assert conservative.tie_probabilities(1).tolist() == [0.0]


def test_a_fit_on_the_usual_images_does_not_see_the_unusual_ones() -> None:
    class Mean(Plain):
        def score(self, evidence: Floats, predicted: Integers, fit: Fit) -> Floats:
            return np.abs(evidence[:, 0] - fit["offset"])

    values = np.concatenate([np.linspace(-1, 1, 95), np.full(5, 40.0)])
    sample = sample_of(values)
    plain = calibrate(Mean(), sample, 0.05)  # type: ignore[arg-type]
    robust = calibrate(Mean(), sample, 0.05, contamination=0.05)  # type: ignore[arg-type]
    assert plain.fit["offset"] == pytest.approx(2.0)
    assert robust.fit["offset"] == pytest.approx(0.0, abs=1e-9)
    assert robust.thresholds(1)[0] < 2 < 30 < plain.thresholds(1)[0]
    assert len(robust.pooled) == 95
    assert (cross_scores(Mean(), sample, contamination=0.05)[95:] > 38).all()  # type: ignore[arg-type]


@pytest.mark.parametrize("share", [-0.1, 0.5, float("nan")])
def test_a_share_of_poison_outside_its_range_is_refused(share: float) -> None:
    with pytest.raises(CalibrationError, match="contamination"):
        calibrate(Plain(), sample_of(np.random.default_rng(0).random(300)), 0.01, contamination=share)  # type: ignore[arg-type]


def test_a_hundred_thousand_images() -> None:
    generator = np.random.default_rng(0)
    predicted = generator.integers(0, 100, 100_000)
    part = calibrated(generator.random(100_000), 0.01, predicted)
    assert len(part.groups) == 100
    assert part.thresholds(100) == pytest.approx(np.full(100, 0.99), abs=0.02)
    assert sum(len(group.scores) for group in part.groups) == len(part.pooled) == 100_000


def test_a_calibration_from_before_there_were_ties_and_trimming_is_read() -> None:
    part = calibrated(np.random.default_rng(1).random(200), 0.02)
    older = {name: value for name, value in part.to_json().items() if name not in ("ties", "contamination")}
    assert DetectorCalibration.from_json(older).to_json() == part.to_json()


def test_json_and_back_is_the_same_calibration() -> None:
    generator = np.random.default_rng(1)
    part = calibrated(generator.random(200), 0.02, generator.integers(0, 3, 200))
    again = DetectorCalibration.from_json(part.to_json())
    assert again.thresholds(4).tolist() == part.thresholds(4).tolist()
    assert again.p_value(1, 0.5) == part.p_value(1, 0.5)
    assert again.to_json() == part.to_json()


SHAPES = {
    "continuous": lambda g, c: g.random(len(c)),
    "six levels": lambda g, c: g.integers(0, 6, len(c)) / 5,
    "saturated": lambda g, c: np.minimum(1.0, g.random(len(c)) + 0.5),
    "one sink class": lambda g, c: np.where(c == 0, 1.0, g.random(len(c)) ** 3),
    "constant": lambda _, c: np.ones(len(c)),
}


SHARES = {
    "falling": [0.4, 0.3, 0.15, 0.1, 0.05],
    "small last class": [0.24, 0.24, 0.24, 0.24, 0.04],
    "two": [0.2, 0.8, 0.0, 0.0, 0.0],
}


@pytest.mark.parametrize("ties", ["conservative", "randomised"])
@pytest.mark.parametrize("share", list(SHARES))
@pytest.mark.parametrize("by", ["class", "marginal"])
@pytest.mark.parametrize("alpha", [0.01, 0.05, 0.1])
@pytest.mark.parametrize("shape", list(SHAPES))
def test_the_budget_is_kept_over_many_random_splits_of_balanced_or_skewed_classes(
    shape: str, alpha: float, by: str, share: str, ties: str
) -> None:
    """Mean FPR over 120 calibrations of 250 images each."""
    generator = np.random.default_rng(7)
    rates = []
    for _ in range(120):
        predicted = generator.choice(5, 250 + 500, p=SHARES[share])
        scores = SHAPES[shape](generator, predicted)
        part = replace(calibrated(scores[:250], alpha, predicted[:250], by), ties=ties)
        limits, lots = part.thresholds(5)[predicted[250:]], part.tie_probabilities(5)[predicted[250:]]
        new, draws = scores[250:], generator.random(500)
        rates.append(((new > limits) | ((new == limits) & (draws < lots))).mean())
    standard_error = np.std(rates) / math.sqrt(len(rates))
    assert np.mean(rates) <= alpha + 3 * standard_error
    if ties == "randomised" and by == "marginal":  # nothing of the budget is lost in ties
        assert np.mean(rates) >= math.floor(alpha * 251 + 1e-9) / 251 - 3 * standard_error
