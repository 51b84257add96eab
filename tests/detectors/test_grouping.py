"""Who shares a threshold, and that choosing it costs nothing."""

import math

import numpy as np
import pytest

from detectors.conformal import conformal_threshold
from detectors.grouping import group_by_label, held_back


def test_labels_with_enough_images_stand_alone_and_similar_ones_share() -> None:
    predicted = np.repeat([0, 1, 2, 3, 4], [50, 15, 15, 15, 15])
    middles = np.array([0.5, 0.9, 0.1, 0.8, 0.2])
    scores = middles[predicted] + np.linspace(0, 0.01, len(predicted))
    groups = group_by_label(scores, predicted, alpha=0.05)  # 19 images are needed
    assert [group.labels for group in groups] == [(0,), (2, 4), (1, 3)]
    assert all((np.diff(group.scores) >= 0).all() for group in groups)
    assert [len(group.scores) for group in groups] == [50, 24, 24]  # a fifth of 30 only chose


def test_too_few_for_a_choice_are_one_group_and_nothing_is_held_back() -> None:
    predicted = np.repeat([0, 1, 2], [50, 15, 15])
    groups = group_by_label(np.linspace(0, 1, 80), predicted, alpha=0.05)
    assert [(group.labels, len(group.scores)) for group in groups] == [((0,), 50), ((1, 2), 30)]


def test_labels_that_are_too_few_even_together_join_the_most_similar_large_one() -> None:
    predicted = np.repeat([0, 1, 2], [50, 50, 10])
    scores = np.concatenate([np.full(50, 0.2), np.full(50, 0.6), np.full(10, 0.9)])
    groups = group_by_label(scores, predicted, alpha=0.05)
    assert [(group.labels, len(group.scores)) for group in groups] == [((0,), 50), ((1, 2), 58)]


def test_what_is_left_of_the_small_labels_joins_the_last_run() -> None:
    predicted = np.repeat(np.arange(5), 8)
    groups = group_by_label(np.linspace(0, 1, 40), predicted, alpha=0.1)  # 9 are needed, 6 kept of each
    assert [group.labels for group in groups] == [(0, 1), (2, 3, 4)]


def test_a_fifth_of_every_label_is_held_back_and_at_least_one() -> None:
    predicted = np.repeat([0, 1, 2], [1, 5, 12])
    held = held_back(predicted, seed=0)
    assert [int(held[predicted == label].sum()) for label in range(3)] == [1, 1, 3]
    assert not np.array_equal(held, held_back(predicted, seed=1))


@pytest.mark.parametrize(
    ("labels", "images", "alpha"), [(43, 1000, 0.01), (20, 100, 0.1), (10, 110, 0.1), (8, 200, 0.02)]
)
def test_sorting_similar_labels_together_spends_no_more_than_the_budget(
    labels: int, images: int, alpha: float
) -> None:
    """Heavy tails, and labels that do not differ at all: whoever sorts them by the scores that set the
    thresholds puts the high scores into one group, and spends up to twice the budget in the others."""
    generator = np.random.default_rng(5)
    rates = []
    for _ in range(250):
        predicted = generator.integers(0, labels, images)
        scores = generator.exponential(size=images) ** 2
        groups = group_by_label(scores, predicted, alpha)
        above = [
            len(group.labels) * math.exp(-math.sqrt(conformal_threshold(group.scores, alpha)))
            for group in groups
        ]
        rates.append(sum(above) / sum(len(group.labels) for group in groups))
    assert np.mean(rates) <= alpha + 3 * np.std(rates) / math.sqrt(len(rates))
