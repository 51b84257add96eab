"""Probes by name, and ladders of them."""

import pytest

from detectors.base import InputError
from detectors.probes import PRESETS, PROBES, Ladder, probes_named


def test_a_ladder_counts_its_probes() -> None:
    ladder = Ladder.of(["flip", "blur"], ["x3"], clears=0.25)
    assert [probe.name for probe in ladder.probes] == ["flip", "blur", "x3"]
    assert ladder.ends == (2, 3)
    assert ladder.clears == 0.25


@pytest.mark.parametrize("rungs", [[], [[]], [["flip"], []], [["flip"], ["flip"]], [["no such probe"]]])
def test_rungs_that_make_no_ladder_are_refused(rungs: list[list[str]]) -> None:
    with pytest.raises(InputError):
        Ladder.of(*rungs)


@pytest.mark.parametrize("clears", [0.0, 1.0])
def test_a_rung_clears_some_and_not_all(clears: float) -> None:
    with pytest.raises(InputError, match="between 0 and 1"):
        Ladder.of(["flip"], ["blur"], clears=clears)


def test_an_unknown_probe_is_named_with_those_there_are() -> None:
    with pytest.raises(InputError, match=r"'flop'; known: flip"):
        probes_named(["flop"])


def test_the_presets_ask_no_more_than_they_say() -> None:
    assert {name: len(ladder.probes) for name, ladder in PRESETS.items()} == {
        "fast": 4, "balanced": 6, "thorough": 6,
    }  # fmt: skip
    assert len(PRESETS["thorough"].rungs) == 1


def test_every_probe_says_what_it_needs_and_costs() -> None:
    for name, probe in PROBES.items():
        assert (probe.name, probe.needs, probe.cost) == (name, "labels", 1.0)
        assert probe.strength
    assert {probe.kind for probe in PROBES.values()} == {"transform", "blend", "scale"}
