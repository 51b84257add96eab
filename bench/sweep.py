"""How the cost of the full score grows with n, and with k: multiply-adds always, time if asked for."""

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor
from torch.utils.flop_counter import FlopCounterMode

from bench.subjects import Subject, batch_of
from bench.timing import Budget, Call, interleave, spread
from detectors.fork import Fork

__all__ = ["sweep"]

MOST_N = 10


def sweep(subject: Subject, batch: int | None, budget: Budget) -> dict[str, Any]:
    """Ratios to the undefended network: `by_n` at the subject's k, `by_k` at its n; `time_*` are medians
    at `batch` images, where it is given, of runs in float32."""
    layers = len(subject.order)
    images = batch_of(subject.pools["benign"], batch or 1, 0)
    engine = Fork(subject.network, subject.omega, range(1, layers + 1), subject.order, images[:1])
    by_n = {n: range(subject.k, subject.k + n) for n in range(1, min(MOST_N, layers - subject.k + 1) + 1)}
    by_k = {k: range(k, k + subject.n) for k in range(1, layers - subject.n + 2)}
    result: dict[str, Any] = {"k": subject.k, "n": subject.n, "layers": layers}
    for name, series in (("by_n", by_n), ("by_k", by_k)):
        result[name] = {
            key: flops_ratio(engine, images[:1], [c - 1 for c in counts]) for key, counts in series.items()
        }
        if batch is not None:
            result[f"time_{name}"] = time_ratios(subject, engine, images, series, budget)
    return result


def flops_ratio(engine: Fork, images: Tensor, which: Sequence[int]) -> float:
    """Base and the variants `which` together, over the base alone."""
    with FlopCounterMode(display=False) as base:
        forks = engine.base(images)[1]
    with FlopCounterMode(display=False) as variants:
        engine.variants(forks, which)
    return 1 + int(variants.get_total_flops()) / int(base.get_total_flops())


def time_ratios(
    subject: Subject, engine: Fork, images: Tensor, series: dict[int, range], budget: Budget
) -> dict[int, float]:
    def full(counts: Sequence[int]) -> Call:
        which = [count - 1 for count in counts]
        return lambda _: engine.variants(engine.base(images)[1], which)

    @torch.inference_mode()
    def plain(_: int) -> Any:
        return subject.network(images)

    calls: dict[str, Callable[[int], object]] = {str(key): full(counts) for key, counts in series.items()}
    seconds = interleave({"plain": plain, **calls}, budget, subject.device)
    return {
        key: spread([a / b for a, b in zip(seconds[str(key)], seconds["plain"], strict=True)]).median
        for key in series
    }
