"""Is traffic still like the calibration sample, and if not: drift, or an attack?

Two tests for each detector. Of the scores of cleared images, where they are exact, whether their p-values
are still uniform. Of verdicts, which early exit decides exactly too, whether they are still as rare as
the calibration says. Benign traffic raises an alarm within n images with a chance of at most
n / `run_length`, for all tests together (union bound over `Cusum`).

An attacker sends his images to one label and leaves all others alone; drift strikes everybody's. So an
alarm is read as an attack where rejections lie with one label far more often than predictions do, and
the scores of images cleared since the change began are as they were.
"""

import math
from collections import Counter, deque
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum
from operator import itemgetter
from random import Random
from typing import Protocol

import numpy as np

from detectors.base import Floats
from detectors.binomial import binomial_tail
from detectors.calibration import DetectorCalibration, Group
from detectors.martingale import (
    ODDS,
    P_VALUE_BETS,
    Cusum,
    EventUrn,
    RankUrn,
    event_factors,
    p_value_factors,
)
from detectors.tally import Event, Tally
from detectors.uniformity import kolmogorov_smirnov

__all__ = ["DriftMonitor", "Look", "State", "TopLabel"]

REJECTIONS = 128  # rejected images whose labels are remembered
PREDICTIONS = 4096  # predictions that say how common each label is
HOLD = 5000  # images without an alarm after which the state is steady again
CONCENTRATED = 0.5  # share of one label among rejections from which they may read as an attack
SIGNIFICANCE = 1e-3  # of that share against the label's share of predictions, over all labels
CLEARED = 2048  # p-values of cleared images that are remembered for each detector
MOVED = 1e-4  # chance of so odd p-values under an attack alone: below it the change is everybody's


class State(StrEnum):
    """`LEARNING`: there is no calibration to compare traffic with."""

    STEADY = "steady"
    DRIFTING = "drifting"
    UNDER_ATTACK = "under_attack"
    LEARNING = "learning"


class Look(Protocol):
    """What one detector said of one image; `exact` is false where `score` is only a bound."""

    @property
    def detector(self) -> str: ...
    @property
    def score(self) -> float: ...
    @property
    def suspicious(self) -> bool: ...
    @property
    def exact(self) -> bool: ...


@dataclass(frozen=True)
class TopLabel:
    """The label with most of the recent rejections: its `share` of them, of all recent predictions
    (`expected`), and the chance of a share so high if rejections fell like predictions, over all labels."""

    label: int
    share: float
    expected: float
    rejections: int
    p_value: float

    @property
    def concentrated(self) -> bool:
        return self.share >= CONCENTRATED and self.p_value <= SIGNIFICANCE


def _groups(part: DetectorCalibration, classes: int) -> Sequence[Group]:
    """The groups of predicted labels that `part` judges together; labels in none were never seen."""
    return part.groups or (Group(tuple(range(classes)), part.pooled),)


class _ScoreTest:
    """One detector's p-values among images that it clears, with a reference for each group of labels.

    Cleared images only: an attack that is caught leaves them as they were, drift does not. Given that a
    score lies below a benign one, it still falls into any of the gaps below with the same chance.
    """

    name = "scores"

    def __init__(self, part: DetectorCalibration, thresholds: Floats, ties: Floats, random: Random) -> None:
        self.detector, self.loudest = part.detector, Cusum(P_VALUE_BETS)
        self._seen: deque[tuple[int, float]] = deque(maxlen=CLEARED)  # (image number, p-value)
        self._urns: dict[int, RankUrn] = {}
        self._first: dict[int, int] = {}  # the first label of each label's group
        self._below: dict[int, float] = {}  # of labels with ties settled by lot: the threshold
        for group in _groups(part, len(thresholds)):
            limits = np.unique(thresholds[list(group.labels)])
            if len(limits) > 1:
                continue  # what is cleared below several is not known
            if ties[list(group.labels)].any():
                # Some images at the threshold are cleared, and which is no matter of scores: none count.
                cleared = np.sort(group.scores[group.scores < limits[0]])
                self._below.update(dict.fromkeys(group.labels, float(limits[0])))
            else:
                cleared = np.sort(group.scores[group.scores <= limits[0]])
                if len(cleared) < len(group.scores):
                    cleared = cleared[:-1]  # the threshold itself bounds the highest gap
            self._urns.update(dict.fromkeys(group.labels, RankUrn(cleared, random)))
            self._first.update(dict.fromkeys(group.labels, group.labels[0]))

    @property
    def value(self) -> float:
        return self.loudest.value

    def highest(self) -> float:
        return self.value

    def event(self, label: int, look: Look) -> Event | None:
        """What the outcome of an image is to this test; None where it is nothing."""
        urn = self._urns.get(label)
        counts = not look.suspicious and look.score < self._below.get(label, math.inf)
        return (self._first[label], urn.cell(look.score)) if urn is not None and counts else None

    def update(self, event: Event, number: int) -> None:
        label, cell = event
        p = self._urns[label].draw(cell)
        self._seen.append((number, p))
        self.loudest.update(p_value_factors(p), number)

    def moved_since(self, number: int) -> bool:
        """Are the scores of images cleared since image `number` unlike those of the calibration?"""
        return kolmogorov_smirnov([p for seen, p in self._seen if seen >= number]) <= MOVED

    def restart(self) -> None:
        """Begin again at the calibration."""
        self.loudest.restart()
        for urn in self._urns.values():
            urn.restart()


class _VerdictTest:
    """How often one detector finds images suspicious: over all labels, and within each group of them.

    Drift is seen sooner over all, an attack on one label within its group, where nobody else's images
    dilute it. Half of the chance of a false alarm goes to either, and the groups share their half.
    """

    name = "verdicts"

    def __init__(self, part: DetectorCalibration, thresholds: Floats, ties: Floats) -> None:
        self.detector = part.detector
        self._urns: dict[int, tuple[EventUrn, Cusum]] = {}
        self._first: dict[int, int] = {}  # the first label of each label's group
        for group in _groups(part, len(thresholds)):
            limits = np.unique(thresholds[list(group.labels)])
            if len(limits) > 1 or np.isinf(limits[0]):
                continue  # how often any of several is passed is not known; infinity never is
            above, tied = (group.scores > limits[0]).sum(), (group.scores == limits[0]).sum()
            by_lot = float(ties[list(group.labels)].max()) * (1 + tied)  # as in `conformal.tie_probability`
            urn = EventUrn(float(above + max(0.0, by_lot - 1)), len(group.scores)), Cusum(len(ODDS))
            self._urns.update(dict.fromkeys(group.labels, urn))
            self._first.update(dict.fromkeys(group.labels, group.labels[0]))
        self._groups = len({id(cusum) for _, cusum in self._urns.values()})
        self._all = Cusum(len(ODDS))
        self.restart()

    def event(self, label: int, look: Look) -> Event | None:
        """What the outcome of an image is to this test; None where it is nothing."""
        return (self._first[label], int(look.suspicious)) if label in self._urns else None

    def update(self, event: Event, number: int) -> None:
        label, suspicious = event[0], bool(event[1])
        urn, cusum = self._urns[label]
        factors = event_factors(suspicious, urn.chance(suspicious))
        over_all = self._all.update(factors, number) / 2
        within = cusum.update(factors, number) / (2 * self._groups)
        self.value, self.loudest = (over_all, self._all) if over_all >= within else (within, cusum)

    def highest(self) -> float:
        """`value`, which is that of the last image's group, over all groups."""
        within = max((cusum.value for _, cusum in self._urns.values()), default=0.0)
        return max(self._all.value / 2, within / (2 * max(1, self._groups)))

    def restart(self) -> None:
        """Begin again at the calibration."""
        self.value, self.loudest = 0.0, self._all
        self._all.restart()
        for urn, cusum in self._urns.values():
            urn.restart()
            cusum.restart()


def _name(test: _ScoreTest | _VerdictTest) -> str:
    return f"{test.detector} {test.name}"


class DriftMonitor:
    """Watches the outcomes of images one by one; `observe` takes microseconds and memory is bounded.

    Deterministic, given `seed` and the outcomes. Not safe for several threads.
    """

    def __init__(
        self,
        parts: Sequence[DetectorCalibration],
        thresholds: Mapping[str, Floats],
        *,
        ties: Mapping[str, Floats] | None = None,
        run_length: float = 1e6,
        seed: int = 0,
    ) -> None:
        """`thresholds`: what is enforced, (K,) by detector; `ties`: which share of the images exactly there
        is suspicious too, (K,) by detector, none by default. `run_length`: benign traffic raises an alarm
        within n images with a chance of at most n / run_length; change is noticed the later for it."""
        self.classes = len(next(iter(thresholds.values())))
        random = Random(seed)
        self._tests: list[_ScoreTest | _VerdictTest] = []
        for part in parts:
            limits = thresholds[part.detector]
            by_lot = ties[part.detector] if ties else np.zeros(len(limits))
            self._tests.append(_ScoreTest(part, limits, by_lot, random))
            self._tests.append(_VerdictTest(part, limits, by_lot))
        self.limit = run_length * len(self._tests)  # what `Cusum.value` has to reach for an alarm
        self.run_length = run_length
        self.state, self.images, self.alarms = State.STEADY, 0, 0
        self.alarmed_by: str | None = None  # the test that raised the last alarm
        self._last_alarm = self._episode = 0
        self._everybodys = False  # the change moved the scores of cleared images too
        self._rejected: deque[tuple[int, int]] = deque(maxlen=REJECTIONS)  # (image number, label)
        self._predicted: deque[int] = deque(maxlen=PREDICTIONS)
        self._counts = [0] * self.classes  # of `_predicted`
        self.tally = Tally(events={_name(test): Counter() for test in self._tests})

    def observe(self, label: int, looks: Sequence[Look]) -> bool:
        """Take the outcome of one image, predicted as `label`; True where this raised an alarm."""
        self.images += 1
        rejected = any(look.suspicious for look in looks)
        self._count(label, rejected)
        by_name = {look.detector: look for look in looks}
        self._end_score_tests([name for name, look in by_name.items() if not look.exact])
        for test in self._tests:
            look = by_name.get(test.detector)
            event = None if look is None else test.event(label, look)
            if event is not None:
                self.tally.events[_name(test)][event] += 1
                test.update(event, self.images)
        loudest = max(self._tests, key=lambda test: test.value)
        if loudest.value >= self.limit:
            self._alarm(loudest)
            return True
        self._settle(rejected)
        return False

    def _settle(self, rejected: bool) -> None:
        if rejected and self.state is not State.STEADY:
            self.state = self._reading()  # the alarm may have come before anything could tell
        if self.state is not State.STEADY and self.images - self._last_alarm >= HOLD:
            self.state = State.STEADY

    def replay(
        self,
        events: Mapping[str, Sequence[tuple[float, Event]]],
        predicted: Sequence[tuple[float, int]],
        rejected: Sequence[tuple[float, int]],
        *,
        images: int,
        ended: Collection[str] = (),
    ) -> None:
        """Take `images` whose outcomes are known as sums only: what happened, by test, with the labels of all
        and of those rejected, each at a moment in [0, 1) and in order. See `FleetMonitor`."""
        self._end_score_tests(ended)
        tests = {_name(test): test for test in self._tests}
        happened: list[tuple[float, int, str, Event | int]] = [
            *((moment, 0, "predicted", label) for moment, label in predicted),
            *((moment, 1, "rejected", label) for moment, label in rejected),
            *((moment, 2, name, event) for name in tests for moment, event in events.get(name, ())),
        ]
        first = self.images
        for moment, _, name, what in sorted(happened, key=itemgetter(0)):
            self.images = first + int(moment * images) + 1
            if isinstance(what, int):
                self._replay_label(what, rejected=name == "rejected")
                continue
            test = tests[name]
            test.update(what, self.images)
            if test.value >= self.limit:
                self._alarm(test)
        self.images = first + images
        self._settle(rejected=False)

    def _replay_label(self, label: int, *, rejected: bool) -> None:
        if rejected:
            self._rejected.append((self.images, label))
            self._settle(rejected=True)
        else:
            self._predict(label)

    def _end_score_tests(self, detectors: Collection[str]) -> None:
        """A score that is only a bound ends the test of its detector's scores for good: which scores stay
        exact depends on the scores, so the exact ones alone are not like those of the calibration."""
        if detectors:
            self.tally.ended.update(detectors)
            self._tests = [
                test
                for test in self._tests
                if isinstance(test, _VerdictTest) or test.detector not in detectors
            ]

    def _count(self, label: int, rejected: bool) -> None:
        self.tally.images += 1
        self.tally.predicted[label] += 1
        self._predict(label)
        if rejected:
            self.tally.rejected[label] += 1
            self._rejected.append((self.images, label))

    def _predict(self, label: int) -> None:
        if len(self._predicted) == PREDICTIONS:
            self._counts[self._predicted[0]] -= 1
        self._predicted.append(label)
        self._counts[label] += 1

    def _alarm(self, test: _ScoreTest | _VerdictTest) -> None:
        if self.state is State.STEADY:
            self._episode = test.loudest.began  # rejections before are no part of the change
            self._everybodys = False
        self._everybodys |= isinstance(test, _ScoreTest)
        self.state = self._reading()
        self.alarms += 1
        self.alarmed_by = _name(test)
        self._last_alarm = self.images
        for each in self._tests:
            each.restart()

    def _reading(self) -> State:
        """What the change looks like since it began."""
        top = self.top_label()
        if top is None or not top.concentrated or self._everybodys:
            return State.DRIFTING
        scores = [test for test in self._tests if isinstance(test, _ScoreTest)]
        self._everybodys = any(test.moved_since(self._episode) for test in scores)
        return State.DRIFTING if self._everybodys else State.UNDER_ATTACK

    def top_label(self) -> TopLabel | None:
        """Where recent rejections lie, since the last change began; None without any."""
        labels = [label for number, label in self._rejected if number >= self._episode]
        if not labels:
            return None
        counts = np.bincount(labels, minlength=self.classes)
        label = int(counts.argmax())
        hits = int(counts[label])
        expected = self._counts[label] / max(1, len(self._predicted))
        chance = min(1.0, self.classes * binomial_tail(hits, len(labels), expected))
        return TopLabel(label, hits / len(labels), expected, len(labels), chance)

    def statistics(self) -> dict[str, float]:
        """Each running test's evidence that traffic has changed, as a share of what raises an alarm, on a
        logarithmic scale: log max(1, value) / log `limit`, in [0, 1)."""
        return {
            _name(test): math.log(max(1.0, test.highest())) / math.log(self.limit) for test in self._tests
        }

    @property
    def evidence(self) -> float:
        """The largest of `statistics()`; an alarm is raised at 1, and starts again from 0."""
        return max(self.statistics().values())

    @property
    def top_share(self) -> float:
        """The share of one label among the rejections remembered; 0 without any."""
        top = self.top_label()
        return top.share if top else 0.0
