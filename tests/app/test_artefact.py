"""The calibration file: what goes in comes out, and nothing else is taken."""

import hashlib
import json
from collections.abc import Callable
from datetime import UTC, datetime
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from app.artefact import ArtefactError, read_artefact, write_artefact
from app.storage.calibrations import Record

PART: dict[str, Any] = {
    "detector": "spc", "settings": {"scales": [3.0]}, "fit": {}, "alpha": 0.01,
    "groups": [{"labels": [0, 1], "scores": [0.1, 0.5]}], "pooled": [0.1, 0.5], "stages": [[0]],
}  # fmt: skip


def record(**changes: Any) -> Record:
    content = {
        "classifier_digest": "d" * 64, "alpha": 0.01, "images": 2, "labelled": False,
        "conditioning": "class", "detectors": [PART],
    }  # fmt: skip
    created = datetime(2026, 3, 4, 5, 6, 7, tzinfo=UTC)
    plain = Record("a-1", created, "d" * 64, "tiny", "1", 0.01, 2, content, {"warnings": ["é"]})
    return Record(**{**plain.__dict__, **changes})


def signed(change: Callable[[dict[str, Any]], object]) -> bytes:
    """The file of `record()` with a changed calibration and the digest that goes with it."""
    file = json.loads(write_artefact(record()))
    change(file["calibration"])
    text = json.dumps(file["calibration"], sort_keys=True, separators=(",", ":"))
    return json.dumps({**file, "sha256": hashlib.sha256(text.encode()).hexdigest()}).encode()


def test_what_is_written_is_read_back() -> None:
    assert read_artefact(write_artefact(record())) == record()


@given(st.lists(st.floats(allow_nan=False, allow_infinity=False), min_size=1, max_size=20))
def test_scores_come_back_to_the_last_bit(scores: list[float]) -> None:
    part = {**PART, "pooled": sorted(scores)}
    kept = record(content={**record().content, "detectors": [part]})
    assert read_artefact(write_artefact(kept)).content["detectors"][0]["pooled"] == sorted(scores)


def test_the_digest_does_not_depend_on_layout() -> None:
    """A file that was formatted by an editor is the same calibration."""
    file = json.loads(write_artefact(record()))
    turned = {**file, "calibration": dict(reversed(file["calibration"].items()))}
    assert read_artefact(json.dumps(turned, indent=4, ensure_ascii=False).encode()) == record()


def test_one_changed_digit_is_found() -> None:
    data = write_artefact(record())
    assert data.count(b"0.01") == 3
    for number in range(3):
        place = -1
        for _ in range(number + 1):
            place = data.index(b"0.01", place + 1)
        with pytest.raises(ArtefactError, match="damaged or changed"):
            read_artefact(data[:place] + b"0.02" + data[place + 4 :])


def setter(*path: Any, value: Any) -> Callable[[dict[str, Any]], None]:
    def change(calibration: dict[str, Any]) -> None:
        place: Any = calibration
        for step in path[:-1]:
            place = place[step]
        place[path[-1]] = value

    return change


DETECTOR = ("content", "detectors", 0)
NONSENSE: list[tuple[Callable[[dict[str, Any]], None], str]] = [
    (setter("id", value="../../etc"), "id"),
    (setter("id", value=7), "id"),
    (setter("created_at", value="2026-03-04T05:06:07"), "created_at"),
    (setter("created_at", value="1577836800"), "created_at"),
    (setter("created_at", value=1577836800), "created_at"),
    (setter("alpha", value="0.01"), "alpha"),
    (lambda c: (c.update(images=10**30), c["content"].update(images=10**30)), "less than"),
    (setter("content", "secret", value=""), "content.secret"),
    (setter(*DETECTOR, "ties", value="none"), "ties"),
    (setter(*DETECTOR, "ties", value="randomised"), "the secret that draws the lots is missing"),
    (setter("content", "screening", value={"suspects": [-1]}), "screening.suspects"),
    (setter(*DETECTOR, "contamination", value=0.5), "contamination"),
    (setter("alpha", value=0.5), "alpha is not that of its content"),
    (setter("classifier_digest", value="e" * 64), "classifier_digest is not that of its content"),
    (setter("content", "alpha", value=0), "content.alpha"),
    (setter("content", "conditioning", value="none"), "content.conditioning"),
    (setter("content", "detectors", value=[]), "content.detectors"),
    (setter(*DETECTOR, "pooled", value=[0.5, 0.1]), "ascending"),
    (setter(*DETECTOR, "pooled", value=[]), "pooled"),
    (setter(*DETECTOR, "pooled", value=["0.1"]), "pooled"),
    (setter(*DETECTOR, "groups", 0, "scores", value=[2.0, 1.0]), "ascending"),
    (setter(*DETECTOR, "groups", 0, "labels", value=[-1]), "labels"),
    (setter(*DETECTOR, "stages", value=[["x"]]), "stages"),
    (setter("report", value=[]), "report"),
    (setter("more", value=1), "more"),
]


@pytest.mark.parametrize(("change", "words"), NONSENSE)
def test_a_calibration_that_makes_no_sense(change: Callable[[dict[str, Any]], None], words: str) -> None:
    with pytest.raises(ArtefactError, match=words):
        read_artefact(signed(change))


@pytest.mark.parametrize(
    ("data", "words"),
    [
        (b"", "not JSON"),
        (b"\x80\x04\x95", "not JSON"),  # a pickle
        (b"[" * 100_000, "not JSON"),
        (b'{"format": "triggerwall-calibration", "x": NaN}', "NaN is not JSON"),
        (b"[]", "no calibration"),
        (b'{"format": "other"}', "no calibration"),
        (b'{"format": "triggerwall-calibration", "format_version": 2}', "format version 2"),
        (b'{"format": "triggerwall-calibration", "format_version": 1}', "damaged"),
    ],
)
def test_a_file_of_another_kind(data: bytes, words: str) -> None:
    with pytest.raises(ArtefactError, match=words):
        read_artefact(data)
