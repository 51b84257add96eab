import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.metrics import roc_auc_score

from lab.metrics import auroc, target_auroc

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
