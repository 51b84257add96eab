"""Monitors of several replicas, added up, against one that sees everything itself."""

import numpy as np
import pytest

from detectors.base import InputError
from detectors.drift import DriftMonitor, State
from detectors.fleet import MOST, FleetMonitor
from detectors.tally import Tally
from tests.detectors.test_drift import Seen, calibration, first_alarm, monitor, stream

REPLICAS = 4


def fleet(seed: int = 0, run_length: float = 1e5) -> tuple[FleetMonitor, list[DriftMonitor]]:
    """A fleet that has had its first look, and its replicas, which have seen nothing."""
    part = calibration(seed)
    whole = FleetMonitor(monitor(part, seed, run_length), seed)
    replicas = [monitor(part, seed, run_length) for _ in range(REPLICAS)]
    whole.look(tallies(replicas))
    return whole, replicas


def tallies(replicas: list[DriftMonitor]) -> dict[str, Tally]:
    """As they come from the store."""
    return {str(n): Tally.from_arrays(each.tally.to_arrays()) for n, each in enumerate(replicas)}


def first_look(
    whole: FleetMonitor, replicas: list[DriftMonitor], outcomes: list[tuple[int, Seen]], every: int
) -> int | None:
    """How many images the fleet had seen when a look raised an alarm; the images go round."""
    for number, (label, seen) in enumerate(outcomes, 1):
        replicas[number % REPLICAS].observe(label, [seen])
        if number % every == 0 and whole.look(tallies(replicas)):
            return number
    return None


def test_the_sums_of_replicas_are_those_of_one_gateway() -> None:
    whole, replicas = fleet()
    alone = monitor(calibration())
    outcomes = list(stream(calibration(), 400, 1, attack=0.05))
    first_look(whole, replicas, outcomes, 50)
    for label, seen in outcomes:
        alone.observe(label, [seen])
    total = sum(tallies(replicas).values(), Tally())
    assert (total.images, total.predicted, total.rejected) == (
        400,
        alone.tally.predicted,
        alone.tally.rejected,
    )
    assert total.events == alone.tally.events
    assert whole.monitor.images == 400


def test_what_came_since_and_what_was_before_make_the_whole() -> None:
    watch = monitor(calibration())
    first_alarm(watch, stream(calibration(), 100, 1))
    before = Tally.from_arrays(watch.tally.to_arrays())
    first_alarm(watch, stream(calibration(), 60, 2))
    news = watch.tally.since(before)
    assert news.images == 60
    assert before + news == watch.tally


def test_benign_traffic_raises_no_more_alarms_than_the_bound() -> None:
    """With a run length of 4,000, 400 images of the fleet raise one with a chance of at most a tenth: in 60
    fleets at most 6 + 4 standard deviations, and over all looks, not at any one."""
    alarms = 0
    for seed in range(60):
        whole, replicas = fleet(seed, run_length=4000)
        alarms += first_look(whole, replicas, list(stream(calibration(seed), 400, seed)), 40) is not None
    assert alarms <= 6 + 4 * np.sqrt(60 * 0.1 * 0.9)


def test_its_evidence_has_the_distribution_of_one_that_sees_all() -> None:
    """Moved scores: the evidence after 60 images has the same mean, within four standard errors."""
    together, alone = [], []
    for seed in range(120):
        whole, replicas = fleet(seed, run_length=1e9)
        outcomes = list(stream(calibration(seed), 60, seed, shift=0.8))
        first_look(whole, replicas, outcomes, 20)
        one = monitor(calibration(seed), seed, run_length=1e9)
        for label, seen in outcomes:
            one.observe(label, [seen])
        together.append(whole.monitor.evidence)
        alone.append(one.evidence)
    difference = np.array(together) - np.array(alone)
    assert abs(difference.mean()) < 4 * difference.std() / np.sqrt(len(difference)) + 0.01
    assert np.mean(together) > 0.1


def test_the_fleet_notices_before_its_replicas_do() -> None:
    """In ten fleets of four: how often none of the replicas has raised an alarm when the fleet does."""
    alone = 0
    for seed in range(10):
        whole, replicas = fleet(seed)
        first_look(whole, replicas, list(stream(calibration(seed), 400, seed)), 20)
        moved = list(stream(calibration(seed), 4000, seed + 100, shift=0.7))
        assert first_look(whole, replicas, moved, 20) is not None
        assert whole.state is State.DRIFTING
        alone += not any(each.alarms for each in replicas)
    assert alone >= 7


def test_an_attack_on_all_replicas_is_one() -> None:
    whole, replicas = fleet()
    first_look(whole, replicas, list(stream(calibration(), 400, 1)), 40)
    assert first_look(whole, replicas, list(stream(calibration(), 3000, 2, attack=0.04)), 40) is not None
    first_look(whole, replicas, list(stream(calibration(), 800, 3, attack=0.04)), 900)
    whole.look(tallies(replicas))
    assert whole.state is State.UNDER_ATTACK
    top = whole.monitor.top_label()
    assert top is not None
    assert top.label == 3


def test_what_was_there_at_the_first_look_is_no_news() -> None:
    part = calibration()
    replica = monitor(part)
    first_alarm(replica, stream(part, 300, 1, shift=3.0))
    whole = FleetMonitor(monitor(part))
    assert whole.look({"a": replica.tally}) is False
    assert (whole.monitor.images, whole.replicas) == (0, 1)
    newcomer = monitor(part)
    first_alarm(newcomer, stream(part, 50, 2))
    whole.look({"a": replica.tally, "b": newcomer.tally})
    assert (whole.monitor.images, whole.replicas) == (50, 2)


def test_a_long_look_is_replayed_in_part() -> None:
    part = calibration()
    whole = FleetMonitor(monitor(part))
    whole.look({})
    busy = monitor(part)
    first_alarm(busy, stream(part, MOST + 2000, 1))
    whole.look({"a": busy.tally})
    assert whole.monitor.images == MOST
    assert whole.state is State.STEADY


def test_scores_that_one_replica_knows_only_as_bounds_are_tested_for_none() -> None:
    whole, replicas = fleet()
    replicas[0].observe(0, [Seen("a", 0.0, False, exact=False)])
    whole.look(tallies(replicas))
    assert list(whole.monitor.statistics()) == ["a verdicts"]


def test_what_is_no_tally_is_refused() -> None:
    with pytest.raises(InputError, match="no tally"):
        Tally.from_arrays({"images": np.zeros(0, dtype=np.int64)})
