"""The short run of `make fuzz`, and the oracle that it judges by."""

from pathlib import Path

from tests.proof.fuzz import Findings, Resources, fuzz
from tests.proof.mutations import FORMATS, Mutant, mutant

SHORT = 250


def test_mutated_files_are_answered_rightly(tmp_path: Path) -> None:
    findings = fuzz(SHORT, tmp_path)
    assert not findings.wrong, str(findings)
    assert findings.images == SHORT
    assert set(findings.statuses) == {200, 413, 415, 422}


def test_files_are_the_same_every_time_and_of_every_kind() -> None:
    assert mutant(7) == mutant(7)
    names = {mutant(number).name.partition(", ")[2] for number in range(0, 400)}
    assert {"as it is", "flip_bits", "png_surgery", "append", "text_bomb", "lying_header", "cut"} <= names
    assert {mutant(number).name.partition(",")[0] for number in range(40)} >= set(FORMATS)


def test_the_oracle_sees_what_is_wrong() -> None:
    findings = Findings()
    sent = Mutant("x", b"", frozenset({413}))
    findings.judge(sent, 0, 413, "urn:triggerwall:problem:image-too-large")
    assert not findings.wrong
    findings.judge(sent, 1, 500, "urn:triggerwall:problem:internal-error")
    findings.judge(sent, 2, 413, "urn:triggerwall:problem:body-too-large")
    findings.before, findings.after = Resources(100, 10, 10), Resources(300, 90, 50)
    findings.compare()
    assert len(findings.wrong) == 5
