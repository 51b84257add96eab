"""The tables of a report as words and numbers, before they are Markdown or HTML."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

from lab.report.results import Bundle, Row

__all__ = [
    "NONE",
    "Table",
    "ablation_table",
    "class_table",
    "figure_tables",
    "models_table",
    "rate_table",
]

NONE = "—"


@dataclass(frozen=True)
class Table:
    """`rows` are as long as `headings`; `note` says what the numbers are of."""

    title: str
    note: str
    headings: tuple[str, ...]
    rows: tuple[tuple[str, ...], ...]


@dataclass(frozen=True)
class Measure:
    """One number of a detector on a model. `detail` is put in parentheses behind it; `averaged`: a mean over
    models means something; `of_benign`: benign models have it too."""

    title: str
    note: str
    value: Callable[[Row], float | None]
    detail: Callable[[Row], str | None] = lambda _: None
    averaged: bool = True
    of_benign: bool = False
    digits: int = 3


def models_table(bundles: Sequence[Bundle]) -> Table:
    """One line per bundle, none dropped."""
    headings = ("model", "architecture", "attack", "target", "BA", "ASR", "state")
    rows = [
        (
            each.name, each.architecture or NONE, each.attack or "none",
            NONE if each.attack is None else str(each.target),
            _told(each.benign_accuracy), _told(each.success_rate), each.state,
        )
        for each in bundles
    ]  # fmt: skip
    note = "BA: clean test images classified correctly. ASR: triggered test images that get the target label."
    return Table("Models", note, headings, tuple(rows))


def figure_tables(bundles: Sequence[Bundle]) -> list[Table]:
    """Detectors × models, a table per measure; measures that no evaluation has are left out."""
    judged = [each for each in bundles if each.rows]
    tables = [_table(measure, judged) for measure in MEASURES]
    noisy = [replace(each, rows=each.noisy) for each in bundles if each.noisy]
    tables += [_table(measure, noisy) for measure in NOISY_MEASURES]
    return [table for table in [*tables, rate_table(judged)] if table is not None]


def rate_table(bundles: Sequence[Bundle]) -> Table | None:
    """AUROCs by poisoning rate, of models that differ in nothing else but the seed; None without such."""
    groups: dict[str, list[Bundle]] = {}
    for each in bundles:
        if each.attack is not None and each.poison_rate is not None:
            groups.setdefault(each.variant, []).append(each)
    shown = [each for each in groups.values() if len({one.poison_rate for one in each}) > 1]
    if not shown:
        return None
    chosen = [one for each in shown for one in sorted(each, key=lambda one: one.poison_rate or 0)]
    detectors = list(dict.fromkeys(name for each in chosen for name in each.rows))
    rows = tuple(
        (
            each.name, f"{100 * (each.poison_rate or 0):g} %", _told(each.success_rate),
            *[_told(each.rows[name].auroc) if name in each.rows else NONE for name in detectors],
        )
        for each in chosen
    )  # fmt: skip
    note = "AUROC of each detector, by the share of training images that carried the trigger."
    return Table("Poisoning rate", note, ("model", "poisoned", "ASR", *detectors), rows)


def class_table(bundle: Bundle) -> Table | None:
    """Benign images rejected at 5 %, by the label they are given; None where no evaluation tells."""
    rows = {name: row.class_fpr for name, row in bundle.rows.items() if row.class_fpr}
    if not rows:
        return None
    classes = max(map(len, rows.values()))
    lines = tuple(
        (str(label), *[_told(each[label]) if label < len(each) else NONE for each in rows.values()])
        for label in range(classes)
    )
    note = "Share of the benign images predicted as a class that is rejected at a budget of 5 %."
    return Table(f"{bundle.name}: FPR by class", note, ("class", *rows), lines)


def ablation_table(bundle: Bundle) -> Table | None:
    """Every setting that was tried; None where none was."""
    rows = tuple(
        (
            each.parameter, each.detector, each.value + (" (usual)" if each.usual else ""),
            *map(_told, (each.auroc, each.target_auroc, each.tpr, each.fpr, each.tpr_fixed, each.fpr_fixed)),
        )
        for each in bundle.ablation
    )  # fmt: skip
    if not rows:
        return None
    headings = ("setting", "detector", "value", "AUROC", "AUROC within the target class", "TPR at 5 %",
                "FPR at 5 %", "TPR at T", "FPR at T")  # fmt: skip
    note = (
        "One setting varied at a time, the others as usual, which is the paper's value. Of all poisoned "
        "images. Calibration sizes: the mean of 10 draws."
    )
    return Table(f"{bundle.name}: ablations", note, headings, rows)


def _table(measure: Measure, bundles: Sequence[Bundle]) -> Table | None:
    shown = [each for each in bundles if measure.of_benign or each.attack is not None]
    detectors = list(dict.fromkeys(name for each in shown for name in each.rows))
    values = {
        name: [measure.value(each.rows[name]) if name in each.rows else None for each in shown]
        for name in detectors
    }
    if all(value is None for row in values.values() for value in row):
        return None
    rows = []
    for name, numbers in values.items():
        cells = [_cell(measure, each.rows.get(name), v) for each, v in zip(shown, numbers, strict=True)]
        mean = [_mean(measure, shown, numbers)] if measure.averaged else []
        rows.append((name, *cells, *mean))
    last = [f"mean of those that took (n = {sum(each.took for each in shown)})"] if measure.averaged else []
    return Table(measure.title, measure.note, ("detector", *map(_heading, shown), *last), tuple(rows))


def _heading(bundle: Bundle) -> str:
    if bundle.attack is None:
        return f"{bundle.name} (benign)"
    return bundle.name if bundle.took else f"{bundle.name} ({bundle.state})"


def _cell(measure: Measure, row: Row | None, value: float | None) -> str:
    detail = measure.detail(row) if row is not None and value is not None else None
    return _told(value, measure.digits) + (f" ({detail})" if detail else "")


def _mean(measure: Measure, bundles: Sequence[Bundle], values: Sequence[float | None]) -> str:
    """Over the models whose attack took; says of how many where some lack the value."""
    took = [value for each, value in zip(bundles, values, strict=True) if each.took]
    known = [value for value in took if value is not None]
    if not known:
        return NONE
    text = _told(sum(known) / len(known), measure.digits)
    return text if len(known) == len(took) else f"{text} (of {len(known)})"


def _told(value: float | None, digits: int = 3) -> str:
    return NONE if value is None else f"{value:.{digits}f}"


def _between(interval: tuple[float, float] | None) -> str | None:
    return f"{interval[0]:.3f}–{interval[1]:.3f}" if interval else None


def _worst(row: Row) -> tuple[float | None, int]:
    known = [(rate, label) for label, rate in enumerate(row.class_fpr) if rate is not None]
    return max(known, key=lambda each: each[0], default=(None, 0))


TPR = "Share of poisoned images rejected, all of them"
PASSES = "Forward passes per image beyond the plain one, with early exit at the 5 % budget."
SECONDS = (
    "Milliseconds per image, in batches, with the plain pass and early exit; of the machine that judged."
)

MEASURES = (
    Measure(
        "AUROC",
        "All benign against all poisoned images, with 95 % bootstrap intervals.",
        lambda row: row.auroc,
        lambda row: _between(row.auroc_interval),
    ),
    Measure(
        "AUROC within the target class",
        "Benign images predicted as the target label against all poisoned "
        "images: a detector that merely recognises that label has 0.5.",
        lambda row: row.target_auroc,
        lambda row: _between(row.target_auroc_interval),
    ),
    Measure("TPR at 1 %", f"{TPR}, at a false-positive budget of 1 %.", lambda row: row.tpr.get("0.01")),
    Measure("TPR at 5 %", f"{TPR}, at a false-positive budget of 5 %.", lambda row: row.tpr.get("0.05")),
    Measure(
        "TPR at 5 %, successful images",
        "As above, of the poisoned images alone that get the target label.",
        lambda row: (row.tpr_successful or {}).get("0.05"),
    ),
    Measure("TPR at the paper's T", f"{TPR}, at the fixed threshold.", lambda row: row.tpr.get("fixed")),
    Measure(
        "F1 at 5 %",
        "Of all poisoned among all judged images, at a budget of 5 %; it depends on their numbers.",
        lambda row: row.f1.get("0.05"),
    ),
    Measure(
        "FPR at 1 %",
        "Share of benign images rejected at a budget of 1 %; no calibration image among them.",
        lambda row: row.fpr.get("0.01"),
        of_benign=True,
    ),
    Measure(
        "FPR at 5 %",
        "Share of benign images rejected at a budget of 5 %; no calibration image among them.",
        lambda row: row.fpr.get("0.05"),
        of_benign=True,
    ),
    Measure(
        "FPR at 5 %, worst class",
        "Of the images predicted as the class for which it is largest.",
        lambda row: _worst(row)[0],
        lambda row: f"class {_worst(row)[1]}" if _worst(row)[0] else None,
        averaged=False,
        of_benign=True,
    ),
    Measure(
        "FPR at the paper's T",
        "Share of benign images rejected at the fixed threshold.",
        lambda row: row.fpr.get("fixed"),
        of_benign=True,
    ),
    Measure("Cost on benign images", PASSES, lambda row: row.passes[0], of_benign=True, digits=2),
    Measure("Cost on poisoned images", PASSES, lambda row: row.passes[1], digits=2),
    Measure(
        "Time on benign images",
        SECONDS,
        lambda row: None if row.seconds[0] is None else 1000 * row.seconds[0],
        averaged=False,
        of_benign=True,
        digits=2,
    ),
)

NOISE = "Uniform noise on every judged image, as in SCALE-UP's published code; calibrated without"

NOISY_MEASURES = (
    Measure(
        "AUROC, noisy images", f"{NOISE}.", lambda row: row.auroc, lambda row: _between(row.auroc_interval)
    ),
    Measure("AUROC within the target class, noisy images", f"{NOISE}.", lambda row: row.target_auroc),
    Measure("TPR at 5 %, noisy images", f"{NOISE}.", lambda row: row.tpr.get("0.05")),
    Measure("FPR at 5 %, noisy images", f"{NOISE}.", lambda row: row.fpr.get("0.05"), of_benign=True),
)
