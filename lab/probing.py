"""Which probes earn their place: ladders on banks of answers, chosen on some attacks, judged on another."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

import numpy as np
from rich.table import Table
from torch import Tensor

from detectors.base import Detector
from detectors.calibration import calibrate
from detectors.label_profile import LabelProfile
from detectors.probes import PRESETS, PROBES, Ladder
from detectors.profile import Profile
from lab.bank import Answers, Bank
from lab.figures import BUDGETS
from lab.metrics import auroc, target_auroc
from lab.one_class import ONE_CLASS
from lab.tabular import slim_table

__all__ = ["Judged", "candidates", "choose", "detail", "held_out", "judge", "summary"]

TOOK = 0.9  # an ASR from which on an attack counts
MOST_PROBES = 8  # that are chosen one after the other
Build = Callable[[Any], Detector]


@dataclass(frozen=True)
class Judged:
    """One way of asking on one model, whose attack succeeds on the share `success` of its images. `tpr` and
    `fpr` by budget, of all poisoned images; `passes` beyond the plain one, per benign and per poisoned image,
    with early exit at the last budget. `shifts`: the share of benign images stopped at the last budget under
    each harmless change of the world."""

    model: str
    attack: str | None
    success: float
    way: str
    auroc: float | None
    target_auroc: float | None
    tpr: dict[str, float]
    fpr: dict[str, float]
    passes: tuple[float, float | None]
    shifts: dict[str, float]


MEASURES: dict[str, Callable[[Judged], float | None]] = {
    "AUROC": lambda row: row.auroc,
    "of target class": lambda row: row.target_auroc,
    "TPR at 1 %": lambda row: row.tpr["0.01"],
    "TPR at 5 %": lambda row: row.tpr["0.05"],
}


class _Silent:
    """A classifier that is never asked: its answers are in the bank."""

    network = None

    def __init__(self, num_classes: int) -> None:
        self.num_classes = num_classes

    def logits(self, images: Tensor) -> Tensor:
        raise NotImplementedError


def candidates() -> dict[str, Build]:
    """Every way of asking that is compared: the presets, other one-class models over the probes of the
    thorough one, and labels only."""
    everything = Ladder((tuple(PROBES.values()),))
    found: dict[str, Build] = {name: partial(Profile, ladder=ladder) for name, ladder in PRESETS.items()}
    found["all probes"] = partial(Profile, ladder=everything)
    for name, build in list(ONE_CLASS.items())[1:]:
        found[name] = partial(build, ladder=PRESETS["thorough"])
    found["labels only"] = LabelProfile
    found["labels, all probes"] = partial(LabelProfile, probes=everything.probes)
    return found


def judge(bank: Bank, way: str, build: Build, calibration: int | None = None) -> Judged:
    """Calibrate what `build` makes on the bank's first `calibration` images, or all, and judge the others."""
    detector = build(_Silent(bank.classes))
    by_label = isinstance(detector, LabelProfile)
    columns = bank.columns([probe.name for probe in detector.probes])  # type: ignore[attr-defined]

    def evidence(answers: Answers) -> np.ndarray:
        return answers.sample(columns, by_label=by_label, name=detector.name).evidence[detector.name]

    known = bank.calibration if calibration is None else bank.calibration.first(calibration)
    sample = known.sample(columns, by_label=by_label, name=detector.name)
    parts = {alpha: calibrate(detector, sample, alpha) for alpha in BUDGETS}
    last = parts[BUDGETS[-1]]

    def scores(answers: Answers) -> np.ndarray:
        return detector.score(evidence(answers), answers.predicted, last.fit)

    def rejected(answers: Answers, alpha: float) -> float:
        limits = parts[alpha].thresholds(bank.classes)[answers.predicted]
        return float((scores(answers) > limits).mean())

    def passes(answers: Answers) -> float:
        limits = last.thresholds(bank.classes)[answers.predicted]
        cost = detector.cost(evidence(answers), answers.predicted, last.fit, limits, last.stages)  # type: ignore[attr-defined]
        return float(cost.expected)

    bad = bank.poisoned
    benign = scores(bank.benign)
    return Judged(
        bank.model,
        bank.attack,
        bank.success,
        way,
        None if bad is None else auroc(benign, scores(bad)),
        None if bad is None else target_auroc(benign, bank.benign.predicted, scores(bad), bank.target),
        {} if bad is None else {str(alpha): rejected(bad, alpha) for alpha in BUDGETS},
        {str(alpha): rejected(bank.benign, alpha) for alpha in BUDGETS},
        (passes(bank.benign), None if bad is None else passes(bad)),
        {name: rejected(each, BUDGETS[-1]) for name, each in bank.shifted.items()},
    )


def choose(banks: Sequence[Bank], most: int = MOST_PROBES) -> list[str]:
    """Probes one after the other, each the one that helps most on `banks` beside those before it.

    What counts is the mean TPR at both budgets and the mean AUROC within the target class.
    """
    chosen: list[str] = []
    while len(chosen) < min(most, len(PROBES)):
        left = [name for name in PROBES if name not in chosen]
        worth = {name: _worth(banks, [*chosen, name]) for name in left}
        chosen.append(max(left, key=worth.__getitem__))
    return chosen


def _worth(banks: Sequence[Bank], names: list[str]) -> float:
    ladder = Ladder.of(names)
    found = [judge(_plain(bank), "", partial(Profile, ladder=ladder)) for bank in banks]
    return float(
        np.mean([np.mean([*each.tpr.values(), each.target_auroc or each.auroc or 0]) for each in found])
    )


def _plain(bank: Bank) -> Bank:
    """Without the images that have no part in a choice."""
    return replace(bank, shifted={})


def held_out(
    banks: Sequence[Bank], most: int = MOST_PROBES, advance: Callable[[str], object] = lambda _: None
) -> list[Judged]:
    """Every attack judged with the probes that were chosen on all other attacks: nothing is tuned to its own
    test. One row for each model and number of probes."""
    rows: list[Judged] = []
    for attack in sorted({bank.attack for bank in banks if bank.attack}):
        advance(attack)
        order = choose([bank for bank in banks if bank.attack not in (attack, None)], most)
        for count in range(1, len(order) + 1):
            ladder = Ladder.of(order[:count])
            rows += [
                judge(_plain(bank), "+".join(order[:count]), partial(Profile, ladder=ladder))
                for bank in banks
                if bank.attack == attack
            ]
    return rows


def summary(title: str, rows: Sequence[Judged]) -> Table:
    """One line per way: the mean over the backdoored models whose attack took, and the least of them; FPRs
    (at 1 and 5 %) and passes of benign images are means over all models."""
    table = slim_table(f"{title}: mean and least", "way", *MEASURES, "FPR", "passes")
    for way in dict.fromkeys(row.way for row in rows):
        mine = [row for row in rows if row.way == way]
        took = [row for row in mine if row.success >= TOOK]
        fpr = " ".join(f"{np.mean([row.fpr[str(a)] for row in mine]):.3f}" for a in BUDGETS)
        cells = (_mean_and_least([read(row) for row in took]) for read in MEASURES.values())
        table.add_row(way, *cells, fpr, f"{np.mean([row.passes[0] for row in mine]):.1f}")
    return table


def _mean_and_least(values: Sequence[float | None]) -> str:
    known = [value for value in values if value is not None]
    return f"{np.mean(known):.3f} {min(known):.3f}" if known else "–"


def detail(title: str, rows: Sequence[Judged]) -> Table:
    """One line per model."""
    table = slim_table(
        title, "model", "ASR", "AUROC", "of target class", "TPR / FPR at 1 %", "TPR / FPR at 5 %",
        "passes, benign / triggered", "worst shift at 5 %",
    )  # fmt: skip
    for each in rows:
        worst = max(each.shifts.items(), key=lambda pair: pair[1], default=None)
        table.add_row(
            each.model,
            _told(each.success if each.attack else None, 2),
            _told(each.auroc),
            _told(each.target_auroc),
            *[f"{_told(each.tpr.get(str(a)))} / {each.fpr[str(a)]:.3f}" for a in BUDGETS],
            " / ".join(_told(passes, 1) for passes in each.passes),
            "–" if worst is None else f"{worst[1]:.2f} {worst[0]}",
        )
    return table


def _told(value: float | None, digits: int = 3) -> str:
    return "–" if value is None else f"{value:.{digits}f}"
