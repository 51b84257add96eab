"""One budget for several detectors: split among those that can reject anything."""

from typing import Any

import numpy as np
import pytest

from detectors.base import CalibrationError, Fit, Floats, Integers, Stages
from detectors.budget import share_budget
from detectors.calibration import BenignSample


class Fake:
    """A detector whose evidence is its score, with 1 as the largest."""

    def __init__(self, name: str) -> None:
        self.name = name

    def settings(self) -> dict[str, Any]:
        return {}

    def fit(self, evidence: Floats, predicted: Integers, labels: Integers | None) -> Fit:
        return {}

    def score(self, evidence: Floats, predicted: Integers, fit: Fit) -> Floats:
        return evidence[:, 0]

    def plan(self, evidence: Floats, predicted: Integers, fit: Fit, thresholds: Floats) -> Stages:
        return [[0]]

    def maxima(self, fit: Fit) -> Floats:
        return np.ones(3)


def sample(**scores: Floats) -> BenignSample:
    count = len(next(iter(scores.values())))
    predicted = np.arange(count) % 3
    return BenignSample(predicted, None, {name: values[:, None] for name, values in scores.items()})


DETECTORS: Any = [Fake("a"), Fake("b"), Fake("c")]


def test_shares_are_even_and_the_saturated_one_spends_nothing() -> None:
    generator = np.random.default_rng(0)
    clean = {name: generator.random(600) for name in ("a", "b")}
    even = share_budget(DETECTORS, sample(**clean, c=generator.random(600)), 0.06)
    assert list(even) == ["a", "b", "c"]
    assert [round(part.alpha, 9) for part in even.values()] == [0.02, 0.02, 0.02]
    spared = share_budget(DETECTORS, sample(**clean, c=np.ones(600)), 0.06)
    assert [round(part.alpha, 9) for part in spared.values()] == [0.03, 0.03, 0.02]


def test_ties_of_a_saturated_detector_are_not_settled_by_lot() -> None:
    generator = np.random.default_rng(0)
    levels = generator.integers(0, 5, 600) / 5
    parts = share_budget(
        DETECTORS, sample(a=levels, b=generator.random(600), c=np.ones(600)), 0.06, ties="randomised"
    )
    assert [part.ties for part in parts.values()] == ["randomised", "randomised", "conservative"]
    assert (parts["a"].tie_probabilities(3) > 0).all()
    assert parts["c"].tie_probabilities(3).tolist() == [0, 0, 0]


@pytest.mark.parametrize("ties", ["conservative", "randomised"])
def test_together_they_keep_the_budget(ties: Any) -> None:
    generator = np.random.default_rng(1)
    rates = []
    for _ in range(150):
        scores = {"a": generator.random(900), "b": generator.integers(0, 6, 900) / 6, "c": np.ones(900)}
        parts = share_budget(DETECTORS, sample(**{n: v[:300] for n, v in scores.items()}), 0.1, ties=ties)
        predicted, draws = np.arange(300, 900) % 3, generator.random(600)
        suspicious = np.zeros(600, dtype=bool)
        for part in parts.values():
            new, limit = scores[part.detector][300:], part.thresholds(3)[predicted]
            suspicious |= (new > limit) | ((new == limit) & (draws < part.tie_probabilities(3)[predicted]))
        rates.append(suspicious.mean())
    assert np.mean(rates) <= 0.1 + 3 * np.std(rates) / np.sqrt(len(rates))
    if ties == "conservative":
        assert np.mean(rates) < 0.07  # six levels: the second detector's share is lost in ties


def test_too_few_images_are_counted_over_all_detectors_and_after_trimming() -> None:
    values = np.random.default_rng(2).random(200)
    with pytest.raises(CalibrationError, match="split among 3 detectors, takes 299; send more"):
        share_budget(DETECTORS, sample(a=values, b=values, c=values), 0.01)
    with pytest.raises(CalibrationError, match="takes 312"):  # ⌈280 / 0.9⌉
        share_budget(DETECTORS, sample(a=values, b=values, c=values), 3 / 280.5, contamination=0.1)
