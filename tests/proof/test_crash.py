"""The short version of `python -m tests.proof.crash`."""

from pathlib import Path

from tests.proof.crash import crash


def test_what_was_answered_survives_kills(tmp_path: Path) -> None:
    found = crash(2, tmp_path, seed=1)
    assert found.wrong == []
    assert found.kills == 2
    assert len(found.answered) >= 1
