"""Triggered images among the calibration images: found where they are, and not where they are not."""

import math

import numpy as np
import pytest

from detectors.base import Floats, Integers
from detectors.calibration import BenignSample
from detectors.contamination import distances_from_others, screen

SIZE = 5


def sample(
    generator: np.random.Generator, images: int, triggered: int, labels: int = 10
) -> tuple[Floats, Integers, Integers]:
    """Profiles, predictions and true labels; the last `triggered` images answer 3 and lie apart."""
    predicted = generator.integers(0, labels, images)
    middles = np.random.default_rng(1).normal(0, 1, (labels, SIZE))
    profiles = middles[predicted] + generator.standard_t(8, (images, SIZE))
    truth = predicted.copy()
    if triggered:
        predicted[-triggered:] = 3
        profiles[-triggered:] = np.array([9.0, -9, 9, -9, 9]) + generator.normal(0, 0.5, (triggered, SIZE))
        truth[-triggered:] = np.where(truth[-triggered:] == 3, 4, truth[-triggered:])
    return profiles, predicted, truth


@pytest.mark.parametrize("share", [0.01, 0.05, 0.1])
@pytest.mark.parametrize("labelled", [True, False])
def test_triggered_images_are_found_even_where_they_are_the_majority_of_their_label(
    share: float, labelled: bool
) -> None:
    count = round(share * 1000)
    profiles, predicted, truth = sample(np.random.default_rng(0), 1000, count)
    found = screen(profiles, predicted, truth if labelled else None)
    assert (found.strength, found.label) == ("strong", 3)
    assert set(range(1000 - count, 1000)) <= set(found.suspects)
    assert len(found.suspects) <= count + 2
    assert found.share == len(found.suspects) / 1000
    assert "label 3" in " ".join(found.sentences())
    assert found.to_json()["suspects"] == list(found.suspects)


def test_clean_images_raise_no_alarm() -> None:
    alarms = 0
    for seed in range(60):
        profiles, predicted, truth = sample(np.random.default_rng(seed), 400, 0)
        found = screen(profiles, predicted, truth)
        alarms += found.strength == "strong"
        if found.strength == "none":
            assert (found.suspects, found.sentences(), found.share) == ((), [], 0.0)
    assert alarms <= 1


def test_a_benign_label_with_a_long_tail_is_not_suspect() -> None:
    profiles, predicted, _ = sample(np.random.default_rng(2), 1000, 0)
    odd = np.flatnonzero(predicted == 6)
    profiles[odd] *= 1 + np.random.default_rng(3).exponential(0.7, (len(odd), 1))
    assert screen(profiles, predicted, None).suspects == ()


def test_a_label_that_is_odd_as_a_whole_is_not_suspect() -> None:
    profiles, predicted, _ = sample(np.random.default_rng(8), 400, 0)
    odd = predicted == 7
    profiles[odd] += np.array([9.0, -9, 9, -9, 9])
    assert screen(profiles, predicted, None).suspects == ()


def test_labels_alone_tell_where_profiles_do_not() -> None:
    _, predicted, truth = sample(np.random.default_rng(4), 1000, 50)
    found = screen(None, predicted, truth)
    assert (found.strength, found.profiles.strength, found.label) == ("strong", "unknown", 3)
    assert found.suspects == tuple(range(950, 1000))
    assert found.share == pytest.approx(0.05, abs=0.01)
    assert "used all the same" in found.sentences()[0]
    assert screen(None, predicted, None).strength == "unknown"
    assert "have another true label" in found.sentences()[0]


def test_a_label_the_classifier_is_as_poor_at_as_at_others_is_not_suspect() -> None:
    generator = np.random.default_rng(5)
    predicted = generator.integers(0, 10, 1000)
    truth = np.where(generator.random(1000) < np.where(predicted < 5, 0.3, 0.05), 99, predicted)
    assert screen(None, predicted, truth).strength == "none"


def test_distances_are_mahalanobis_distances_from_the_other_labels() -> None:
    profiles, predicted, _ = sample(np.random.default_rng(6), 4000, 0)
    distances = distances_from_others(profiles, predicted, np.ones(4000, dtype=np.bool_))
    assert distances.min() > 0
    # Another label's profile has the covariance within and between labels: the mean distance is about d.
    assert distances.mean() == pytest.approx(SIZE, rel=0.35)


def test_suspects_are_left_out_only_where_it_says_so() -> None:
    profiles, predicted, truth = sample(np.random.default_rng(0), 500, 25)
    found = screen(profiles, predicted, truth)
    whole = BenignSample(predicted, truth, {"profile": profiles})
    assert found.without_suspects(whole) is whole
    left = type(found)(found.images, found.profiles, found.labels, found.suspects, left_out=True)
    assert len(left.without_suspects(whole)) == 500 - len(found.suspects)
    assert "left out" in left.sentences()[0]
    assert "used all the same" in found.sentences()[0]
    assert left.to_json(before=16)["suspects"] == [16 + position for position in found.suspects]


@pytest.mark.parametrize("kind", ["identical", "one label", "two images", "one of each", "not numbers"])
def test_degenerate_samples_are_answered_and_suspect_nobody(kind: str) -> None:
    profiles, predicted, truth = sample(np.random.default_rng(7), 200, 0)
    match kind:
        case "identical":
            profiles[:] = 1.0
        case "one label":
            predicted[:] = 2
        case "two images":
            profiles, predicted, truth = profiles[:2], predicted[:2], truth[:2]
        case "one of each":
            profiles, predicted, truth = profiles[:10], np.arange(10), np.arange(10)
        case "not numbers":
            profiles[3, 2] = np.nan
    found = screen(profiles, predicted, truth)
    assert found.suspects == ()
    assert found.strength in ("unknown", "none")
    assert all(math.isfinite(found.to_json()[part]["p_value"]) for part in ("profiles", "labels"))
