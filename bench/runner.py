"""One run: every contender on every network at every batch size."""

import os
import platform
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from typing import Any

import torch

from bench.arithmetic import error_of
from bench.contenders import EAGER, NAMES, Contender, Style, Workshop
from bench.cost import flops_per_image, resident_bytes
from bench.memory import MeasureError, peak_bytes
from bench.race import Entered, race
from bench.results import Report, Row
from bench.subjects import Subject
from bench.sweep import sweep
from bench.timing import Budget

__all__ = ["Plan", "bench_subject", "contenders_named", "machine_facts"]

OTHERS: tuple[Style, ...] = ("packed", "fast")
SOME_IMAGES = 2  # FLOPs of contenders that treat all images alike are counted on so many
Advance = Callable[[str, float], None]
"""Told what is being done, and which share of it is done."""


@dataclass(frozen=True)
class Plan:
    """What to measure of one subject; `memory` and `sweep_batch`: at this batch size, None for not at all."""

    batches: Sequence[int]
    contenders: Sequence[str] = NAMES
    budget: Budget = field(default_factory=Budget)
    memory: int | None = None
    sweep: bool = False
    sweep_batch: int | None = None
    dtype: torch.dtype = torch.bfloat16


def machine_facts(device: torch.device) -> dict[str, Any]:
    """What the numbers depend on, and whether the machine had something else to do."""
    cores = os.cpu_count() or 1
    facts: dict[str, Any] = {
        "device": torch.cuda.get_device_name(device) if device.type == "cuda" else str(device),
        "processor": f"{platform.machine()}, {cores} cores, {torch.get_num_threads()} threads",
        "torch": torch.__version__,
    }
    if hasattr(os, "getloadavg") and (load := os.getloadavg()[0]) > 0.5 * cores:
        facts["note"] = f"the machine was busy when the run began (load {load:.1f}): times are unreliable"
    return facts


def bench_subject(subject: Subject, plan: Plan, report: Report, advance: Advance) -> None:
    """Measure `subject` and add everything to `report`."""
    label = subject.recipe.label
    report.subjects[label] = {
        "architecture": subject.recipe.architecture, "size": list(subject.recipe.size),
        "layers": len(subject.order), "k": subject.k, "n": subject.n, "omega": subject.omega,
        "weights": "trained" if subject.recipe.bundle else "random weights", "notes": subject.notes,
        "stages": subject.rule.stages if subject.rule else None,
        "thresholds": subject.rule.thresholds.tolist() if subject.rule else None,
    }  # fmt: skip
    workshop = Workshop(subject, plan.dtype)
    contenders, skipped = _prepare(workshop, plan, advance)
    for batch in plan.batches:
        told = partial(advance, f"{label}: batch {batch}")
        report.rows += race(subject, contenders, batch, plan.budget, told)
        report.rows += [replace(row, batch=batch) for row in skipped]
    if plan.memory is not None:
        _add_memory(subject, plan, report, advance)
    if subject.rule is not None:
        for style in OTHERS:
            advance(f"{label}: error of the arithmetic {style!r}", 0)
            report.arithmetic[f"{label}, {style}"] = error_of(style, workshop, subject.rule)
    if plan.sweep:
        advance(f"{label}: sweep over n and k", 0)
        report.sweep[label] = sweep(subject, plan.sweep_batch, plan.budget)


def _prepare(workshop: Workshop, plan: Plan, advance: Advance) -> tuple[list[Entered], list[Row]]:
    """Build every contender, run it once and count; those that cannot run become rows that say why."""
    label = workshop.subject.recipe.label
    entered, skipped = [], []
    for number, name in enumerate(plan.contenders):
        advance(f"{label}: building {name}", number / len(plan.contenders))
        try:
            contender = workshop.build(name)
            row = _count(workshop.subject, contender)
        except Exception as error:  # a stranger's network, and tools with limits of their own
            reason = (str(error).strip() or type(error).__name__).splitlines()[0][:160]
            skipped.append(Row(label, 0, name, skipped=reason))
            continue
        entered.append(Entered(contender, row))
    return entered, skipped


def _count(subject: Subject, contender: Contender) -> Row:
    pool = subject.pools[contender.traffic]
    whole = "early exit" in contender.name
    flops = flops_per_image(contender.call, pool if whole else pool[:SOME_IMAGES])
    row = Row(subject.recipe.label, 0, contender.name, contender.baseline, contender.engine, flops=flops)
    row.resident = resident_bytes(contender.holds)
    return row


def _add_memory(subject: Subject, plan: Plan, report: Report, advance: Advance) -> None:
    """Peak memory at one batch size, into the rows of that size; a failed process leaves a note."""
    assert plan.memory is not None
    label = subject.recipe.label
    for number, name in enumerate(plan.contenders):
        row = report.row(label, name, plan.memory)
        if row is None:
            continue
        advance(f"{label}: peak memory of {name}", number / len(plan.contenders))
        try:
            row.peak = peak_bytes(subject, name, plan.memory, plan.dtype)
        except MeasureError as error:
            subject.notes.append(f"no peak memory of {name}: {error}")


def contenders_named(names: Sequence[str]) -> list[str]:
    """The contenders whose names begin with one of `names`, and always the undefended ones."""
    chosen = [name for name in NAMES if any(name.startswith(start) for start in names)]
    return [name for name in NAMES if name in chosen or name.startswith(EAGER)]
