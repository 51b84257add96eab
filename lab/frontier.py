"""What IBD-PSC costs and detects as ω and n vary: a larger ω reaches the error rate ξ in fewer, later layers.

k is algorithm 1's for every ω. What an ω needs of an image, F_i(x)[ŷ] for the layers i that any n looks at,
is measured once and serves every n; layers beyond k + n − 1 are never run.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from rich.table import Table
from torch import Tensor

from detectors.amplification import Amplified, batch_norm_order
from detectors.base import Floats, Integers
from detectors.calibration import DetectorCalibration, group_by_label
from detectors.engine import build_engine, flops
from detectors.ibd_psc import PAPER_THRESHOLD, choose_k, confidence_in
from detectors.stages import cheapest_stages, expected_cost
from lab.judge import BUDGETS, Study
from lab.metrics import auroc, target_auroc
from lab.tabular import slim_table

__all__ = ["NS", "OMEGAS", "Spot", "explore", "frontier_table"]

OMEGAS, NS = (1.5, 2.0, 3.0, 5.0, 10.0), (1, 3, 5)
CHUNK = 5  # layers that are tried together while k is looked for
Advance = Callable[[str, float], None]
"""Told what is being done, and which share of everything is done."""


@dataclass(frozen=True)
class Spot:
    """One (ω, n). FLOPs are ratios to the undefended network, exact for `flops_full`; `flops_benign` is
    the mean of early exit over the judged benign images, by threshold: the budgets as text and "fixed", the
    paper's T, as are `tpr` and `fpr`. `deepest` is base plus the deepest variant alone."""

    omega: float
    n: int
    k: int
    note: str | None
    flops_full: float
    deepest: float
    flops_benign: dict[str, float]
    auroc: float
    target_auroc: float | None
    tpr: dict[str, float]
    fpr: dict[str, float]


@dataclass
class Measured:
    """Of N images: predictions (N,), and for layer i in column i − 1 the confidence in them and the answer
    of F_i, each (N, L); NaN and −1 where i was not measured."""

    predicted: Integers
    confidence: Floats
    answers: Integers


def explore(
    study: Study, omegas: Sequence[float], ns: Sequence[int], xi: float, advance: Advance = lambda *_: None
) -> list[Spot]:
    """Every (ω, n) on one model under attack. Raises `InputError` for an ω at which the network overflows
    float32, and `UnsupportedNetwork` without BatchNorm."""
    network = study.classifier.network
    example = study.batches(study.calibration.images)[0][:16]
    order = batch_norm_order(network, example[:2])
    ns = sorted({min(n, len(order)) for n in ns})
    spots = []
    for number, omega in enumerate(omegas):
        advance(f"ω = {omega:g}: looking for k", number / len(omegas))
        engine = build_engine(network, omega, range(1, len(order) + 1), order, example)
        calibration, rates = until_exceeded(engine, study, xi)
        firsts = {n: choose_k(rates, n, xi) for n in ns}
        needed = sorted({i for n, (k, _) in firsts.items() for i in range(k, k + n)})
        sets = [calibration]
        for part, images in enumerate((study.benign, study.poisoned)):
            advance(f"ω = {omega:g}: judging", (number + (1 + part) / 3) / len(omegas))
            sets.append(measure(engine, study, images, needed))
        measure(engine, study, study.calibration.images, needed, calibration)
        counted = flops(engine, example[:1], together=[0])
        costs = np.array(counted["variants"]) / counted["base"]
        for n, (k, note) in firsts.items():
            columns = slice(k - 1, k - 1 + n)
            spots.append(judged(study, omega, n, k, note, [each.confidence[:, columns] for each in sets],
                                [each.predicted for each in sets], costs[columns]))  # fmt: skip
    advance("done", 1.0)
    return spots


def until_exceeded(engine: Amplified, study: Study, xi: float) -> tuple[Measured, list[float]]:
    """The calibration images on as many layers as algorithm 1 looks at, and its error rates (L,), 0 for the
    layers after those."""
    layers = len(engine.counts)
    found: Measured | None = None
    rates = np.zeros(layers)
    for first in range(1, layers + 1, CHUNK):
        chunk = range(first, min(first + CHUNK, layers + 1))
        found = measure(engine, study, study.calibration.images, chunk, found)
        for i in chunk:
            rates[i - 1] = (found.answers[:, i - 1] != study.calibration.labels.numpy()).mean()
        if rates.max() > xi:
            break
    assert found is not None  # there is a layer
    return found, rates.tolist()


@torch.inference_mode()
def measure(
    engine: Amplified, study: Study, images: Tensor, layers: Sequence[int], known: Measured | None = None
) -> Measured:
    """Measure `images` (N, C, H, W) on `layers`, into `known` where that is given; what it has is kept."""
    if known is None:
        shape = (len(images), len(engine.counts))
        known = Measured(np.empty(len(images), np.int64), np.full(shape, np.nan), np.full(shape, -1))
    missing = [i for i in layers if np.isnan(known.confidence[:, i - 1]).any()]
    start = 0
    for batch in study.batches(images) if missing else ():
        rows = slice(start, start + len(batch))
        start += len(batch)
        logits, forks = engine.base(batch)
        labels = logits.argmax(1)
        known.predicted[rows] = labels.cpu().numpy()
        for i in missing:
            amplified = engine.variants(forks, [i - 1])
            known.confidence[rows, i - 1] = confidence_in(amplified, labels)[:, 0].cpu().numpy()
            known.answers[rows, i - 1] = amplified[0].argmax(1).cpu().numpy()
    return known


def judged(
    study: Study,
    omega: float,
    n: int,
    k: int,
    note: str | None,
    values: Sequence[Floats],
    predicted: Sequence[Integers],
    costs: Floats,
) -> Spot:
    """`values` (N, n) and `predicted` (N,) of the calibration, the benign and the poisoned images; `costs`
    (n,) of the variants, in base passes."""
    scores = [each.mean(1) for each in values]
    limits = thresholds(scores[0], predicted[0], study.classifier.num_classes)
    rates = [
        {name: float((scores[kind] > limit[predicted[kind]]).mean()) for name, limit in limits.items()}
        for kind in (1, 2)
    ]
    benign = {
        name: early_flops(
            cheapest_stages(values[0], limit[predicted[0]], costs), values[1], limit[predicted[1]], costs
        )
        for name, limit in limits.items()
    }
    return Spot(
        omega, n, k, note, 1 + float(costs.sum()), 1 + float(costs[-1]), benign,
        auroc(scores[1], scores[2]), target_auroc(scores[1], predicted[1], scores[2], study.target),
        rates[1], rates[0],
    )  # fmt: skip


def thresholds(scores: Floats, predicted: Integers, classes: int) -> dict[str, Floats]:
    """(classes,) by predicted label: at each budget, and the paper's T."""
    limits = {"fixed": np.full(classes, PAPER_THRESHOLD)}
    for alpha in BUDGETS:
        groups = group_by_label(scores, predicted, alpha)
        part = DetectorCalibration("psc", {}, {}, alpha, groups, np.sort(scores))
        limits[str(alpha)] = part.thresholds(classes)
    return limits


def early_flops(stages: Sequence[Sequence[int]], values: Floats, limits: Floats, costs: Floats) -> float:
    """Mean FLOPs of base and early exit on images like `values` (N, n) with thresholds `limits` (N,)."""
    return 1 + expected_cost(stages, values, limits, costs, per_stage=0)


def frontier_table(study: Study, spots: Sequence[Spot]) -> Table:
    """One line per (ω, n); FLOPs over the undefended network."""
    title = (
        f"{study.classifier.info.name}: {study.attack}, target {study.target}; calibrated on "
        f"{len(study.calibration)}, judged {len(study.benign)} benign and {len(study.poisoned)} triggered"
    )
    headings = ("ω", "n", "k", "FLOPs, full", "early exit, T = 0.9 / 1 %", "AUROC", "of target class",
                "TPR / FPR at 1 %", "at 5 %", "at T = 0.9")  # fmt: skip
    table = slim_table(title, *headings)
    for spot in spots:
        table.add_row(
            f"{spot.omega:g}", str(spot.n), f"{spot.k}{'*' if spot.note else ''}", f"{spot.flops_full:.2f}",
            f"{spot.flops_benign['fixed']:.2f} / {spot.flops_benign['0.01']:.2f}", f"{spot.auroc:.3f}",
            "—" if spot.target_auroc is None else f"{spot.target_auroc:.3f}",
            *[f"{spot.tpr[name]:.3f} / {spot.fpr[name]:.3f}" for name in (*map(str, BUDGETS), "fixed")],
        )  # fmt: skip
    if any(spot.note for spot in spots):
        table.caption = "* k could not be kept: the network has too few layers, or none reaches ξ"
    return table
