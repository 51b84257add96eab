"""The short version of `python -m tests.proof.soak`: no bounds on time, only on what is answered."""

from pathlib import Path

from tests.proof.soak import soak


def test_more_than_it_can_do(tmp_path: Path) -> None:
    report = soak(4, tmp_path)
    assert report.wrong == []
    assert report.sent > 0
    assert report.statuses["200"] > 0
