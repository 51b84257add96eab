"""Other thresholds, over what was decided: by hand, and against plain Python."""

import math

import numpy as np
import pytest

from app.policy import Detection
from app.storage.database import Database
from app.storage.decisions import DecisionStore, Span
from app.storage.quarantine import Arrival, Mark, QuarantineStore
from app.storage.what_if import Outcome, Rules, score_distribution, what_if
from tests.app.storage.examples import after, decision, said


def outcome(database: Database, **rules: dict[str, float]) -> Outcome:
    return what_if(database, Rules(rules.get("thresholds", {}), rules.get("p_limits", {}))).all


def keep(database: Database, *detections: Detection) -> None:
    """One decision for each."""
    DecisionStore(database).add([decision(n, each) for n, each in enumerate(detections)])


def test_nothing_kept(database: Database) -> None:
    assert outcome(database, thresholds={"psc": 0.5}) == Outcome(0, 0, 0, 0)


def test_exact_scores_are_settled_at_every_threshold(database: Database) -> None:
    keep(database, said(0.2), said(0.6), said(0.8))
    assert outcome(database) == Outcome(3, 2, 2, 2)
    assert outcome(database, thresholds={"psc": 0.1}) == Outcome(3, 2, 3, 3)
    assert outcome(database, thresholds={"psc": 0.6}) == Outcome(3, 2, 1, 1)  # strictly above
    assert outcome(database, thresholds={"spc": 0.0}) == Outcome(3, 2, 2, 2)  # it said nothing


def test_a_bound_settles_what_lies_beyond_it(database: Database) -> None:
    """Cleared early: the score is at most 0.3. Suspicious early: at least 0.7."""
    keep(database, said(0.3, exact=False), said(0.7, exact=False))
    assert outcome(database) == Outcome(2, 1, 1, 1)
    assert outcome(database, thresholds={"psc": 0.35}) == Outcome(2, 1, 1, 1)
    assert outcome(database, thresholds={"psc": 0.3}) == Outcome(2, 1, 1, 1)
    assert outcome(database, thresholds={"psc": 0.2}) == Outcome(2, 1, 1, 2)
    assert outcome(database, thresholds={"psc": 0.7}) == Outcome(2, 1, 0, 1)


def test_p_values(database: Database) -> None:
    keep(
        database,
        said(0.9, p_value=0.01),
        said(0.1, p_value=0.02),
        said(0.1, p_value=0.5),
        said(0.9, p_value=None),
    )
    assert outcome(database, p_limits={"psc": 0.02}) == Outcome(4, 2, 3, 3)  # no p-value: as it was
    assert outcome(database, p_limits={"psc": 0.001}) == Outcome(4, 2, 1, 1)
    assert outcome(database, thresholds={"psc": 1.0}, p_limits={"psc": 1.0}) == Outcome(4, 2, 0, 0)


def test_what_is_no_number_is_never_cleared(database: Database) -> None:
    keep(database, said(math.nan), said(0.1))
    assert outcome(database, thresholds={"psc": 1e9}) == Outcome(2, 1, 1, 1)


def test_one_suspicious_detector_is_enough(database: Database) -> None:
    DecisionStore(database).add([decision(0, said(0.9), said(0.1, detector="spc"))])
    assert outcome(database, thresholds={"psc": 1.0}) == Outcome(1, 1, 0, 0)
    assert outcome(database, thresholds={"psc": 1.0, "spc": 0.0}) == Outcome(1, 1, 1, 1)


def test_the_newest_of_the_span(database: Database) -> None:
    keep(database, *[said(0.9)] * 5)
    nothing = Rules({}, {})
    assert what_if(database, nothing, Span(after(1), after(4))).all.decisions == 3
    assert what_if(database, nothing, most=2).all.decisions == 2


def test_marked_images_count_once_whatever_the_span(database: Database) -> None:
    judged = [decision(n, said(0.6 + n / 10), image=n) for n in range(3)]
    DecisionStore(database).add([*judged, decision(9, said(0.1))])
    store = QuarantineStore(database)
    store.add([Arrival(d.image_sha256, d.id, 0, 1, "image/png") for d in judged])
    store.mark([judged[0].image_sha256, judged[2].image_sha256], Mark.TRIGGER, "ada")
    store.mark([judged[1].image_sha256], Mark.FALSE_ALARM, "ada")
    found = what_if(database, Rules({"psc": 0.65}, {}), Span(since=after(9)))
    assert found.all == Outcome(1, 0, 0, 0)
    assert found.marked == {Mark.TRIGGER: Outcome(2, 2, 1, 1), Mark.FALSE_ALARM: Outcome(1, 1, 1, 1)}


@pytest.mark.parametrize("threshold", [-1.0, 0.2, 0.5, 0.8])
def test_true_scores_lie_between_the_bounds(database: Database, threshold: float) -> None:
    """Scores with a few of them cut short at 0.5 either way: the full count is within what is said."""
    rng = np.random.default_rng(0)
    scores = rng.random(200)
    shown = [
        said(float(rng.uniform(0.5, s) if s > 0.5 else rng.uniform(s, 0.5)), exact=False)
        if cut
        else said(float(s))
        for s, cut in zip(scores, rng.random(200) < 0.5, strict=True)
    ]
    keep(database, *shown)
    found = outcome(database, thresholds={"psc": threshold})
    assert found.at_least <= int((scores > threshold).sum()) <= found.at_most
    assert found.suspicious == int((scores > 0.5).sum())


class TestDistribution:
    def test_against_numpy(self, database: Database) -> None:
        scores = np.random.default_rng(1).normal(size=300)
        keep(database, *[said(float(s), 0.25, exact=n % 3 > 0) for n, s in enumerate(scores)])
        found = score_distribution(database, "psc", bins=12)
        for counts, chosen in ((found.cleared, scores <= 0.25), (found.suspicious, scores > 0.25)):
            assert counts == np.histogram(scores[chosen], found.edges)[0].tolist()
        assert found.edges[0] == scores.min()
        assert found.edges[-1] == pytest.approx(scores.max())
        assert (found.bounds, found.threshold) == (100, 0.25)

    def test_one_score_and_none(self, database: Database) -> None:
        keep(database, said(0.4), said(0.4), said(math.nan))
        found = score_distribution(database, "psc", bins=3)
        assert (found.edges, found.cleared) == ([0.4, 1.4, 2.4, 3.4], [2, 0, 0])
        assert score_distribution(database, "spc").edges == []

    def test_the_newest_of_the_span(self, database: Database) -> None:
        keep(database, *[said(n / 10) for n in range(5)])
        assert sum(score_distribution(database, "psc", Span(until=after(2))).cleared) == 2
        assert sum(score_distribution(database, "psc", most=3).cleared) == 3
