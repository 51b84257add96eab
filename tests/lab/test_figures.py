"""Figures of scores small enough to count by hand, and the file that keeps the scores."""

from pathlib import Path

import numpy as np
import pytest

from lab.figures import Kind, Scored, figures_of, write_scores

LIMITS = {"0.01": np.array([0.9, 0.9, 0.9]), "0.05": np.array([0.5, 0.2, 0.9]), "fixed": np.full(3, 0.0)}
BENIGN = Kind(np.array([0.1, 0.6, 0.3, 0.1]), np.array([0, 0, 1, 1]), 2.0, 1.5, 0.01, 0)
POISONED = Kind(np.array([0.7, 0.95, 0.1, 0.4]), np.array([0, 0, 0, 1]), 3.0, None, 0.02, 1)


def test_rates_by_hand() -> None:
    figures = figures_of(Scored("spc", 0, LIMITS, BENIGN, POISONED))
    assert figures.fpr == {"0.01": 0, "0.05": 0.5, "fixed": 1}
    assert figures.tpr == {"0.01": 0.25, "0.05": 0.75, "fixed": 1}
    assert (figures.poisoned, figures.successful) == (4, 3)
    assert figures.tpr_successful == pytest.approx({"0.01": 1 / 3, "0.05": 2 / 3, "fixed": 1})
    assert figures.f1 == pytest.approx({"0.01": 0.4, "0.05": 2 * 3 / (3 + 2 + 4), "fixed": 2 / 3})
    assert figures.class_fpr == [0.5, 0.5, None]
    assert figures.auroc == (4 + 4 + 1 + 3) / 16  # of 0.1: one tie with each of two
    assert (figures.terms, figures.passes, figures.seconds) == ((2, 3), (1.5, None), (0.01, 0.02))
    assert (figures.judged, figures.unequal) == (8, 1)


def test_an_attack_that_never_succeeds_has_no_rate_over_successful_images() -> None:
    figures = figures_of(Scored("spc", 2, LIMITS, BENIGN, POISONED))
    assert (figures.successful, figures.tpr_successful) == (0, None)
    assert (figures.target_auroc, figures.target_auroc_interval) == (None, None)


def test_a_benign_model_has_false_positives_only() -> None:
    figures = figures_of(Scored("spc", None, LIMITS, BENIGN, None))
    assert figures.fpr == {"0.01": 0, "0.05": 0.5, "fixed": 1}
    assert (figures.auroc, figures.auroc_interval, figures.tpr, figures.f1) == (None, None, {}, {})
    assert (figures.judged, figures.poisoned, figures.tpr_successful) == (4, 0, None)


def test_scores_are_kept_without_pickles(tmp_path: Path) -> None:
    write_scores(tmp_path / "scores.npz", [Scored("spc", 0, LIMITS, BENIGN, POISONED)])
    with np.load(tmp_path / "scores.npz", allow_pickle=False) as kept:
        assert {name: kept[name].tolist() for name in kept.files} == {
            "spc/benign": BENIGN.scores.tolist(),
            "spc/poisoned": POISONED.scores.tolist(),
            "predicted/benign": [0, 0, 1, 1],
            "predicted/poisoned": [0, 0, 0, 1],
        }
