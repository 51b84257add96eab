"""What guarding a CIFAR ResNet-18 may cost (k = 11, n = 5): a checklist, not a test."""

from collections.abc import Callable
from dataclasses import dataclass

from bench.contenders import EAGER, EARLY, EARLY_FAST, EARLY_PACKED, FULL, FULL_PACKED
from bench.results import Report, Row

__all__ = ["Checked", "check_targets"]

SETTING = {"architecture": "zoo:resnet18", "size": [32, 32], "k": 11, "n": 5}


@dataclass(frozen=True)
class Checked:
    """`value` and `met` are None where this run has not measured it."""

    what: str
    bound: float
    value: float | None

    @property
    def met(self) -> bool | None:
        return None if self.value is None else self.value <= self.bound


def check_targets(report: Report) -> list[Checked]:
    """Every target beside what was measured, on the first network of this setting that has the numbers."""

    def time(row: Row) -> float | None:
        ratio = report.time_ratio(row)
        return ratio.median if ratio else None

    def against_eager(row: Row) -> float | None:
        ratio = report.time_ratio(row, EAGER)
        return ratio.median if ratio else None

    benign, fast = EARLY["benign"], EARLY_FAST["benign"]
    wanted: list[tuple[str, float, str, int | None, Callable[[Row], float | None]]] = [
        ("FLOPs of the full score", 4.0, FULL, None, report.flops_ratio),
        ("FLOPs of early exit on benign images", 2.0, benign, None, report.flops_ratio),
        ("time of the full score, batch 32", 4.1, FULL, 32, time),
        ("time of the full score, batch 1", 2.0, FULL, 1, time),
        ("time of early exit on benign traffic, batch 32", 2.1, benign, 32, time),
        ("resident parameters", 1.05, FULL, None, report.resident_ratio),
        ("the same as served, packed, over undefended eager, batch 1", 2.0, FULL_PACKED, 1, against_eager),
        ("early exit as served, packed, over undefended eager, batch 32", 2.1, EARLY_PACKED["benign"], 32,
         against_eager),
        ("early exit in fast arithmetic over undefended eager float32, batch 32", 1.3, fast, 32,
         against_eager),
    ]  # fmt: skip
    return [
        Checked(what, bound, _first(report, contender, batch, value))
        for what, bound, contender, batch, value in wanted
    ]


def _first(
    report: Report, contender: str, batch: int | None, value: Callable[[Row], float | None]
) -> float | None:
    for network, facts in report.subjects.items():
        if all(facts.get(key) == wanted for key, wanted in SETTING.items()):
            row = report.row(network, contender, batch)
            found = None if row is None else value(row)
            if found is not None:
                return found
    return None
