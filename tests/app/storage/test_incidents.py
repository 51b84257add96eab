"""Rejections that share a label and follow closely are one incident."""

from datetime import timedelta

from app.policy import Verdict
from app.storage.database import Database
from app.storage.decisions import DecisionStore, Span
from app.storage.incidents import incident_images, incidents
from app.storage.quarantine import Arrival, QuarantineStore
from tests.app.storage.examples import after, decision, digest, said

MINUTE = timedelta(minutes=1)


def test_an_incident_ends_with_a_pause_and_has_one_label(database: Database) -> None:
    hit = said(0.9)
    DecisionStore(database).add(
        [
            *[decision(n, hit, label=1) for n in (0, 60, 120)],
            *[decision(n, hit, label=1) for n in (181, 190, 200, 210)],  # 61 s after the ones before
            *[decision(n, hit, label=2) for n in (5, 6)],
            *[decision(n, label=1) for n in (121, 150)],  # accepted: they bridge nothing
            *[decision(n, label=3, verdict=Verdict.FLAGGED) for n in (300, 301, 302)],
        ]
    )
    found = incidents(database, gap=MINUTE)
    assert [(each.label, each.rejections, each.first, each.last) for each in found] == [
        (3, 3, after(300), after(302)),
        (1, 4, after(181), after(210)),
        (1, 3, after(0), after(120)),
    ]
    assert [(each.label, each.rejections) for each in incidents(database, gap=2 * MINUTE)] == [(3, 3), (1, 7)]
    assert len(incidents(database, gap=MINUTE, least=2)) == 4
    assert len(incidents(database, gap=MINUTE, limit=1)) == 1
    assert [each.label for each in incidents(database, Span(since=after(250)), gap=MINUTE)] == [3]
    assert [each.rejections for each in incidents(database, gap=MINUTE, most=5)] == [3]


def test_the_images_of_an_incident(database: Database) -> None:
    hit = said(0.9)
    judged = [decision(n, hit, label=n % 2, image=n) for n in range(6)]
    DecisionStore(database).add(judged)
    QuarantineStore(database).add([Arrival(d.image_sha256, d.id, 0, 1, "image/png") for d in judged])
    first, last = judged[1].id, judged[5].id
    assert incident_images(database, 1, first, last) == [digest(5), digest(3), digest(1)]
    assert incident_images(database, 1, first, last, limit=1) == [digest(5)]
    assert incident_images(database, 1, judged[2].id, judged[4].id) == [digest(3)]
