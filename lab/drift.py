"""How soon the drift watch notices a change of the traffic, and what it takes it for: simulated on streams
of real images, whose outcomes under one calibration are drawn with replacement."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from rich.progress import track
from rich.table import Table

from detectors.base import Floats
from detectors.budget import share_budget
from detectors.calibration import DetectorCalibration
from detectors.drift import DriftMonitor, State
from lab.data import LabError
from lab.guard import Outcome, judge_images, limits, measure, rejected
from lab.judge import Study
from lab.shifts import SHIFTS
from lab.tabular import slim_table

__all__ = ["ATTACK_SHARES", "Plan", "Scenario", "drift_plot", "drift_table", "simulate"]

ATTACK_SHARES = (0.02, 0.01)
EVERY = 20  # images between two points of a trace
SETTLE = 200  # images after an alarm by which it should be clear what it is


@dataclass(frozen=True)
class Plan:
    """`before` images of benign traffic, then `after` with the change; `repetitions` times."""

    alpha: float
    run_length: float
    before: int
    after: int
    repetitions: int
    seed: int


@dataclass(frozen=True)
class Scenario:
    """One kind of change. `rejected`: share of its images that the firewall stops. Per repetition: `delays`,
    images from the change to the first alarm (None: none), and where there was one, the state `SETTLE`
    images later.
    `false_alarms`: alarms before the change. `trace`: evidence every `EVERY` images, first repetition."""

    name: str
    share: float
    rejected: float
    delays: list[int | None]
    states: list[str]
    false_alarms: int
    trace: list[float]


def simulate(study: Study, plan: Plan) -> list[Scenario]:
    """Calibrate, judge every kind of image once, and draw streams from the outcomes."""
    classes = study.classifier.num_classes
    sample = measure(study, study.calibration.images, "calibration images")
    parts = share_budget(study.detectors, sample, plan.alpha)
    benign = judge_images(study, parts, study.benign, "benign images")
    guard = list(parts.values()), limits(parts, classes)
    scenarios = [_scenario("no change", 0.0, benign, benign, guard, plan)]
    for name, shift in SHIFTS.items():
        changed = judge_images(study, parts, shift(study.benign), name)
        scenarios.append(_scenario(name, 1.0, changed, benign, guard, plan))
    poisoned = judge_images(study, parts, study.poisoned, "triggered images")
    for share in ATTACK_SHARES:
        name = f"{share:.0%} {study.attack}"
        scenarios.append(_scenario(name, share, poisoned, benign, guard, plan))
    return scenarios


def _scenario(
    name: str,
    share: float,
    changed: Sequence[Outcome],
    benign: Sequence[Outcome],
    guard: tuple[Sequence[DetectorCalibration], Mapping[str, Floats]],
    plan: Plan,
) -> Scenario:
    delays: list[int | None] = []
    states: list[str] = []
    traces: list[list[float]] = []
    false_alarms = 0
    for repetition in track(range(plan.repetitions), name, transient=True):
        monitor = DriftMonitor(*guard, run_length=plan.run_length, seed=repetition)
        random = np.random.default_rng((plan.seed, repetition))
        trace = _run(monitor, _draw(random, benign, benign, 0.0, plan.before))
        false_alarms += monitor.alarms
        delay, rest = _until_alarm(monitor, _draw(random, changed, benign, share, plan.after))
        delays.append(delay)
        if delay is not None:
            _run(monitor, _draw(random, changed, benign, share, SETTLE))
            states.append(str(monitor.state))
        traces.append([*trace, *rest])
    return Scenario(name, share, rejected(changed), delays, states, false_alarms, traces[0])


def _draw(
    random: np.random.Generator,
    changed: Sequence[Outcome],
    benign: Sequence[Outcome],
    share: float,
    count: int,
) -> list[Outcome]:
    """`count` outcomes, each from `changed` with probability `share`, else from `benign`."""
    from_changed = random.random(count) < share
    return [
        changed[int(random.integers(len(changed)))] if other else benign[int(random.integers(len(benign)))]
        for other in from_changed
    ]


def _run(monitor: DriftMonitor, stream: Sequence[Outcome]) -> list[float]:
    trace = []
    for number, (label, looks) in enumerate(stream):
        monitor.observe(label, looks)
        if number % EVERY == 0:
            trace.append(monitor.evidence)
    return trace


def _until_alarm(monitor: DriftMonitor, stream: Sequence[Outcome]) -> tuple[int | None, list[float]]:
    """Images until the first alarm, and the trace until then, which ends at 1."""
    trace: list[float] = []
    for number, (label, looks) in enumerate(stream, start=1):
        if monitor.observe(label, looks):
            return number, [*trace, 1.0]
        if number % EVERY == 0:
            trace.append(monitor.evidence)
    return None, trace


def drift_table(study: Study, plan: Plan, scenarios: Sequence[Scenario]) -> Table:
    """One line per kind of change."""
    title = (
        f"{study.classifier.info.name}: budget {plan.alpha:.0%}, calibrated on "
        f"{len(study.calibration)} images, {plan.repetitions} streams each"
    )
    headings = ("change", "of it rejected", "noticed", "after images: median (10–90 %)", "read as")
    table = slim_table(title, *headings, "false alarms before")
    for each in scenarios:
        found = [delay for delay in each.delays if delay is not None]
        low, middle, high = np.quantile(found, [0.1, 0.5, 0.9]) if found else (0, 0, 0)
        counts = {str(state): each.states.count(state) for state in (State.DRIFTING, State.UNDER_ATTACK)}
        table.add_row(
            each.name,
            f"{each.rejected:.1%}",
            f"{len(found)} of {len(each.delays)}",
            f"{middle:.0f} ({low:.0f}–{high:.0f})" if found else "–",
            ", ".join(f"{count} × {state}" for state, count in counts.items() if count) or "–",
            f"{each.false_alarms} in {plan.before * len(each.delays):,} images",
        )
    return table


def drift_plot(plan: Plan, scenarios: Sequence[Scenario], file: Path) -> None:
    """Evidence in the first stream of each kind, and the share noticed by delay. Raises `LabError`."""
    try:
        from matplotlib.figure import Figure
    except ImportError as error:
        raise LabError("no plot: matplotlib is not installed (pip install '.[demo]')") from error
    figure = Figure(figsize=(11, 4.2), layout="constrained")
    left, right = figure.subplots(1, 2)
    for number, each in enumerate(scenarios):
        images = np.arange(len(each.trace)) * EVERY - plan.before
        left.plot(images, each.trace, color=f"C{number}", label=each.name, linewidth=1)
        found = sorted(delay for delay in each.delays if delay is not None)
        shares = np.arange(1, len(found) + 1) / len(each.delays)
        right.step([1, *found, plan.after], [0, *shares, len(found) / len(each.delays)], where="post")
    left.axvline(0, color="black", linestyle=":")
    left.axhline(1, color="black", linewidth=0.5)
    left.set(xlabel="images since the change", ylabel="evidence (1 raises an alarm)", title="one stream each")
    right.set(xscale="log", xlabel="images since the change", ylabel="share noticed", title="all streams")
    figure.legend(loc="outside lower center", ncols=len(scenarios), fontsize=8)
    figure.savefig(file, dpi=120)
