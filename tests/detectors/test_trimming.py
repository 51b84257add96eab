"""What is left out of unvetted samples whose poisoned images are known."""

import numpy as np
import pytest

from detectors.base import Fit, Floats, InputError, Integers
from detectors.calibration import BenignSample
from detectors.trimming import surplus, trimmed

CLASSES = 10


class Distance:
    """Squared distance from the mean of the predicted class: poisoned images move it towards themselves."""

    name = "distance"

    def __init__(self, highest: float = np.inf) -> None:
        self.highest, self.scored = highest, 0

    def maxima(self, fit: Fit) -> Floats:
        return np.full(CLASSES, self.highest)

    def fit(self, evidence: Floats, predicted: Integers, labels: Integers | None) -> Fit:
        sums = np.zeros((CLASSES, evidence.shape[1]))
        np.add.at(sums, predicted, evidence)
        return {"means": sums / np.maximum(1, np.bincount(predicted, minlength=CLASSES))[:, None]}

    def score(self, evidence: Floats, predicted: Integers, fit: Fit) -> Floats:
        self.scored += 1
        distances: Floats = ((evidence - fit["means"][predicted]) ** 2).sum(1)
        return distances


DETECTORS = (Distance(),)


def mixed(benign: int, poisoned: int, seed: int = 0) -> tuple[BenignSample, Integers]:
    """Gaussian benign images of ten classes, and poisoned ones predicted as 3, far away from them; also
    the positions of these."""
    random = np.random.default_rng(seed)
    predicted = np.concatenate([random.integers(CLASSES, size=benign), np.full(poisoned, 3)])
    evidence = random.normal(size=(benign + poisoned, 4))
    evidence[benign:] += 6
    order = random.permutation(len(predicted))
    sample = BenignSample(predicted[order], None, {"distance": evidence[order]})
    return sample, np.flatnonzero(order >= benign)


@pytest.mark.parametrize("poisoned", [10, 20, 50, 75])
def test_poisoned_images_are_left_out_though_they_are_nearly_half_of_their_class(poisoned: int) -> None:
    sample, positions = mixed(1000 - poisoned, poisoned)
    kept = trimmed(DETECTORS, sample, 0.1)  # type: ignore[arg-type]
    left_out = len(sample) - len(kept)
    assert poisoned <= left_out <= min(100, poisoned + 12)
    far = sample.evidence["distance"][positions].sum(1).min()
    assert (kept.evidence["distance"].sum(1) < far).all()


def test_clean_images_stay() -> None:
    for seed in range(20):
        sample, _ = mixed(1000, 0, seed)
        assert trimmed(DETECTORS, sample, 0.1) is not sample  # type: ignore[arg-type]
        assert len(trimmed(DETECTORS, sample, 0.1)) == 1000  # type: ignore[arg-type]


def test_nothing_assumed_nothing_done() -> None:
    sample, _ = mixed(900, 100)
    assert trimmed(DETECTORS, sample, 0.0) is sample  # type: ignore[arg-type]


def test_never_more_than_the_share() -> None:
    sample, _ = mixed(700, 300)
    assert len(trimmed(DETECTORS, sample, 0.05)) >= 950  # type: ignore[arg-type]


@pytest.mark.parametrize("share", [-0.1, 0.5, float("nan")])
def test_a_share_that_makes_no_sense(share: float) -> None:
    with pytest.raises(InputError, match=r"\[0, 0\.5\)"):
        trimmed(DETECTORS, mixed(20, 0)[0], share)  # type: ignore[arg-type]


def test_bounded_scores_have_a_say_only_where_there_are_no_others() -> None:
    sample, _ = mixed(950, 50)
    bounded, unbounded = Distance(1.0), Distance()
    trimmed((bounded, unbounded), sample, 0.1)  # type: ignore[arg-type]
    assert bounded.scored == 0 < unbounded.scored
    assert len(trimmed((bounded,), sample, 0.1)) <= 950  # type: ignore[arg-type]


def test_surplus_by_hand() -> None:
    """Of label 0, 20 of 100 were dropped; of the other nine, 2 of 100 each, where 2 are usual. At least
    ⌊0.02/0.98 · 80 − 2 √…⌋ = −1 of them would be anyway, so all go; of the others none."""
    predicted = np.repeat(np.arange(CLASSES), 100)
    dropped = np.zeros(1000, dtype=np.bool_)
    dropped[:20] = True
    for label in range(1, CLASSES):
        dropped[label * 100 : label * 100 + 2] = True
    oddity = np.linspace(0, 1, 1000)
    assert np.flatnonzero(surplus(predicted, dropped, oddity)).tolist() == list(range(20))


def test_surplus_puts_back_what_is_usual_the_least_odd_first() -> None:
    """Label 0: 65 of 100 dropped; others 40 %. Usual: 0.4/0.6 · 35 = 23.3, at least ⌊23.3 − 2 √23.3⌋ = 13; 52
    go. The oddest are those with the smallest oddity, here the last."""
    predicted = np.repeat(np.arange(CLASSES), 100)
    dropped = np.zeros(1000, dtype=np.bool_)
    dropped[:65] = True
    for label in range(1, CLASSES):
        dropped[label * 100 : label * 100 + 40] = True
    oddity = -np.arange(1000.0)
    found = np.flatnonzero(surplus(predicted, dropped, oddity))
    assert found.tolist() == list(range(13, 65))


def test_one_label_only() -> None:
    predicted = np.zeros(50, dtype=np.int64)
    dropped = np.arange(50) < 5
    assert surplus(predicted, dropped, np.arange(50.0)).sum() <= 5
