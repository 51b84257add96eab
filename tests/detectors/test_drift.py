"""The monitor on streams whose change is known."""

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import pytest

from detectors.calibration import DetectorCalibration, Group, conformal_threshold
from detectors.drift import HOLD, PREDICTIONS, REJECTIONS, DriftMonitor, State

CLASSES, ALPHA = 5, 0.01


@dataclass(frozen=True)
class Seen:
    detector: str
    score: float
    suspicious: bool
    exact: bool = True


def calibration(seed: int = 0, per_class: int = 200, name: str = "a") -> DetectorCalibration:
    random = np.random.default_rng((seed, 1))
    groups = tuple(Group((c,), np.sort(random.normal(size=per_class))) for c in range(CLASSES))
    pooled = np.sort(np.concatenate([group.scores for group in groups]))
    return DetectorCalibration(name, {}, {}, ALPHA, groups, pooled)


def monitor(part: DetectorCalibration, seed: int = 0, run_length: float = 1e5) -> DriftMonitor:
    return DriftMonitor([part], {part.detector: part.thresholds(CLASSES)}, run_length=run_length, seed=seed)


def stream(
    part: DetectorCalibration, count: int, seed: int, *, shift: float = 0.0, attack: float = 0.0
) -> Iterator[tuple[int, Seen]]:
    """Normal scores, moved by `shift`; a share `attack` of images of label 3 with a score of 9."""
    random = np.random.default_rng((seed, 2))
    limits = part.thresholds(CLASSES)
    for _ in range(count):
        label, score = int(random.integers(CLASSES)), random.normal() + shift
        if random.random() < attack:
            label, score = 3, 9.0
        yield label, Seen(part.detector, score, score > limits[label])


def first_alarm(watch: DriftMonitor, outcomes: Iterator[tuple[int, Seen]]) -> int | None:
    return next((n for n, (label, seen) in enumerate(outcomes, 1) if watch.observe(label, [seen])), None)


def test_benign_traffic_is_steady() -> None:
    for seed in range(5):
        part = calibration(seed)
        watch = monitor(part, seed)
        assert first_alarm(watch, stream(part, 4000, seed)) is None
        assert (watch.state, watch.alarms, watch.images) == (State.STEADY, 0, 4000)
        assert all(0 <= each < 1 for each in watch.statistics().values())


@pytest.mark.parametrize("shift", [1.0, -1.0])
def test_drift_in_either_direction_is_noticed_soon(shift: float) -> None:
    part = calibration()
    watch = monitor(part)
    assert first_alarm(watch, stream(part, 1000, 1)) is None
    delay = first_alarm(watch, stream(part, 1000, 2, shift=shift))
    assert delay is not None
    assert delay < 150
    assert (watch.state, watch.alarms, watch.alarmed_by) == (State.DRIFTING, 1, "a scores")


def test_an_attack_on_one_label_is_noticed_and_named() -> None:
    part = calibration(per_class=500)
    watch = monitor(part)
    first_alarm(watch, stream(part, 1000, 1))
    delay = first_alarm(watch, stream(part, 3000, 2, attack=0.03))
    assert delay is not None
    assert delay < 1500
    first_alarm(watch, stream(part, 500, 3, attack=0.03))  # a few more rejections tell whose they are
    assert watch.state is State.UNDER_ATTACK
    top = watch.top_label()
    assert top is not None
    assert (top.label, top.concentrated) == (3, True)
    assert top.share > 0.5 > top.expected


def test_verdicts_alone_suffice_for_bounds() -> None:
    """Scores that are bounds end the test of scores, not that of verdicts."""
    part = calibration(per_class=500)
    watch = monitor(part)
    assert set(watch.statistics()) == {"a scores", "a verdicts"}
    for label, seen in stream(part, 3000, 2, attack=0.05):
        watch.observe(label, [Seen("a", seen.score, seen.suspicious, exact=False)])
    assert set(watch.statistics()) == {"a verdicts"}
    assert (watch.alarmed_by, watch.state) == ("a verdicts", State.UNDER_ATTACK)


def test_steady_again_after_enough_images_without_an_alarm() -> None:
    part = calibration()
    watch = monitor(part)
    first_alarm(watch, stream(part, 500, 2, shift=2.0))
    assert watch.state is State.DRIFTING
    assert first_alarm(watch, stream(part, HOLD - 1, 3)) is None
    assert watch.state is State.DRIFTING
    first_alarm(watch, stream(part, 1, 4))
    assert (watch.state, watch.alarms) == (State.STEADY, 1)


def test_drift_that_lasts_is_alarmed_again_and_again() -> None:
    part = calibration()
    watch = monitor(part)
    for label, seen in stream(part, 2000, 2, shift=1.0):
        watch.observe(label, [seen])
    assert watch.alarms > 10
    assert watch.state is State.DRIFTING


def test_the_same_outcomes_give_the_same_figures() -> None:
    part = calibration()
    one, two = monitor(part, seed=5), monitor(part, seed=5)
    for watch in (one, two):
        first_alarm(watch, stream(part, 300, 1))
    assert one.statistics() == two.statistics()


def test_memory_is_bounded() -> None:
    part = calibration()
    watch = monitor(part)
    for label, seen in stream(part, PREDICTIONS + 500, 1, attack=0.2):
        watch.observe(label, [seen])
    assert len(watch._predicted) == PREDICTIONS == sum(watch._counts)
    assert len(watch._rejected) == REJECTIONS


@pytest.mark.filterwarnings("error")
def test_odd_calibrations() -> None:
    """No class can reject anything; one score; labels never seen; scores that are not numbers."""
    empty = DetectorCalibration("a", {}, {}, ALPHA, (), np.array([1.0]))
    watch = DriftMonitor([empty], {"a": np.full(CLASSES, np.inf)})
    for score in (0.5, 1.0, float("nan"), float("inf")):
        watch.observe(4, [Seen("a", score, suspicious=score != score)])
    assert watch.top_label() is not None
    part = DetectorCalibration("a", {}, {}, ALPHA, (Group((0,), np.arange(200.0)),), np.arange(200.0))
    watch = monitor(part)
    assert not watch.observe(2, [Seen("a", 500.0, True)])
    assert watch.statistics() == {"a scores": 0.0, "a verdicts": 0.0}
    assert not watch.observe(0, [])  # no detector looked


def test_marginal_thresholds_share_one_reference() -> None:
    """Labels differ in how high their scores are; only all together they keep the budget."""
    random = np.random.default_rng(0)
    scores = np.concatenate([random.normal(size=200) + label for label in range(CLASSES)])
    part = DetectorCalibration("a", {}, {}, ALPHA, (), np.sort(scores))
    limit = conformal_threshold(part.pooled, ALPHA)
    watch = DriftMonitor([part], {"a": np.full(CLASSES, limit)})
    for _ in range(5000):
        label = int(random.integers(CLASSES))
        score = random.normal() + label
        assert not watch.observe(label, [Seen("a", score, score > limit)])
    assert watch.state is State.STEADY


def test_drift_whose_rejections_fall_under_one_label_is_no_attack() -> None:
    """Everybody's scores rise, and label 3 has most of the rejections: what is cleared tells them apart."""
    part = calibration(per_class=500)
    watch = monitor(part)
    first_alarm(watch, stream(part, 1000, 1))
    for label, seen in stream(part, 1000, 2, shift=1.0, attack=0.1):
        watch.observe(label, [seen])
    top = watch.top_label()
    assert top is not None
    assert (top.label, top.concentrated) == (3, True)
    assert watch.state is State.DRIFTING


@pytest.mark.parametrize("exact", [True, False])
def test_ties_that_are_settled_by_lot_are_no_change(exact: bool) -> None:
    """A tenth of all scores is the threshold, and half of these images are rejected: as calibrated."""
    levels, shares = np.array([0.0, 0.2, 0.4, 0.6, 0.8, 1.0]), (0.3, 0.2, 0.2, 0.1, 0.1, 0.1)
    for seed in range(10):
        random = np.random.default_rng((seed, 3))
        benign = np.sort(random.choice(levels, 1000, p=shares))
        group = Group((0,), benign)
        part = DetectorCalibration("a", {}, {}, 0.05, (group,), benign, ties="randomised")
        limits, ties = part.thresholds(1), part.tie_probabilities(1)
        watch = DriftMonitor([part], {"a": limits}, ties={"a": ties}, run_length=1e5)
        for score in random.choice(levels, 2000, p=shares).tolist():
            suspicious = score > limits[0] or (score == limits[0] and random.random() < ties[0])
            assert not watch.observe(0, [Seen("a", score, bool(suspicious), exact)])
