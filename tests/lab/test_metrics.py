import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.metrics import roc_auc_score

from lab.metrics import auroc, auroc_interval, f1, target_auroc, target_auroc_interval

SCORES = st.lists(st.sampled_from([0.0, 0.2, 0.4, 1.0]) | st.floats(-5, 5), min_size=1, max_size=30)


def test_auroc_by_hand() -> None:
    """Of four pairs, 0.9 beats both, 0.2 ties with one and loses to one: (2 + ½) / 4."""
    assert auroc(np.array([0.2, 0.5]), np.array([0.9, 0.2])) == 0.625


@given(SCORES, SCORES)
@settings(max_examples=200, deadline=None)
def test_auroc_agrees_with_scikit_learn(benign: list[float], poisoned: list[float]) -> None:
    truth = [0] * len(benign) + [1] * len(poisoned)
    expected = roc_auc_score(truth, benign + poisoned)
    assert auroc(np.array(benign), np.array(poisoned)) == pytest.approx(expected)


def test_the_target_class_alone_is_compared() -> None:
    """Recognising the target label looks perfect overall and is worth nothing within the class."""
    benign, predicted = np.array([0.0, 0.0, 1.0, 1.0]), np.array([1, 2, 0, 0])
    poisoned = np.array([1.0, 1.0])
    assert auroc(benign, poisoned) == 0.75
    assert target_auroc(benign, predicted, poisoned, 0) == 0.5
    assert target_auroc(benign, predicted, poisoned, 3) is None


def test_f1_by_hand() -> None:
    """3 of 4 poisoned images stopped with 2 false alarms: precision 3/5, recall 3/4, F1 2/3."""
    assert f1(2, 3, 4) == pytest.approx(2 * (3 / 5) * (3 / 4) / (3 / 5 + 3 / 4))
    assert f1(0, 4, 4) == 1
    assert f1(2, 0, 4) == 0


def slow_interval(benign: np.ndarray, poisoned: np.ndarray, seed: int, resamples: int) -> list[float]:
    """The same draws, one resample and one pair at a time."""
    rng = np.random.default_rng(seed)
    first = rng.integers(0, len(benign), (resamples, len(benign)))
    second = rng.integers(0, len(poisoned), (resamples, len(poisoned)))
    values = []
    for below, above in zip(first, second, strict=True):
        pairs = [(p > b) + (p == b) / 2 for b in benign[below] for p in poisoned[above]]
        values.append(sum(pairs) / len(pairs))
    return np.quantile(values, [0.025, 0.975]).tolist()


@pytest.mark.parametrize("seed", [0, 7])
def test_the_interval_is_that_of_a_slow_loop(seed: int) -> None:
    rng = np.random.default_rng(3)
    benign, poisoned = rng.normal(0, 1, 30).round(1), rng.normal(1, 1, 20).round(1)  # with ties
    low, high = auroc_interval(benign, poisoned, seed, 60)
    assert [low, high] == pytest.approx(slow_interval(benign, poisoned, seed, 60))
    assert low < auroc(benign, poisoned) < high


def test_the_interval_of_a_perfect_score_and_within_the_target_class() -> None:
    benign, poisoned = np.array([0.0, 0.1, 0.2, 0.9]), np.array([0.5, 0.6])
    predicted = np.array([1, 1, 1, 0])
    assert auroc_interval(benign[:3], poisoned) == (1.0, 1.0)
    assert target_auroc_interval(benign, predicted, poisoned, 1) == (1.0, 1.0)
    assert target_auroc_interval(benign, predicted, poisoned, 0) == (0.0, 0.0)
    assert target_auroc_interval(benign, predicted, poisoned, 2) is None
