"""What the check says, of figures by hand."""

import pytest

from bench.plan.check import Checked, error
from bench.plan.report import check_grid, disturbed
from bench.plan.simulation import Simulated

CHECKED = Checked(
    "psc", 100.0, Simulated([0.010] * 50 + [0.030] * 50, 0, 0.5, 1.0), [0.008] * 50 + [0.040] * 50, 0, 3.0
)


def test_the_error_is_a_share_of_what_was_measured() -> None:
    assert error(CHECKED, 0.4) == pytest.approx(0.25)
    assert error(CHECKED, 0.99) == pytest.approx(-0.25)
    (line,) = check_grid([CHECKED]).lines
    assert line == ("psc, 100", "30.0", "40.0", "-25%", "30.0", "40.0", "-25%", "3.0")


def test_who_was_not_answered_counts_as_never() -> None:
    lost = Checked("psc", 100.0, CHECKED.simulated, [0.008] * 98, 2, 3.0)
    assert lost.percentile(0.5) == 0.008
    assert lost.percentile(0.99) == float("inf")


def test_a_busy_machine_is_said() -> None:
    assert disturbed([CHECKED], 2) is None
    assert "Load 3 on 1 cores" in str(disturbed([CHECKED], 1))
    assert disturbed([], 1) is None
