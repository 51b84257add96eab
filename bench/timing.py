"""Timing side by side: every round runs every contender once, in an order drawn anew.

What disturbs the machine for a while then disturbs all of them, and the ratio within a round survives it.
"""

import random
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass

import torch

__all__ = ["Budget", "Spread", "interleave", "orders", "spread"]

Call = Callable[[int], object]
"""Runs one sample, given the number of the round."""


@dataclass(frozen=True)
class Budget:
    """At least `least` rounds, then more until `seconds` are spent, at most `most`."""

    seconds: float = 8.0
    least: int = 3
    most: int = 15


@dataclass(frozen=True)
class Spread:
    """Median and quartiles."""

    median: float
    low: float
    high: float


def spread(values: Sequence[float]) -> Spread:
    """Median and quartiles of one value or more."""
    numbers = torch.tensor(values, dtype=torch.float64)
    low, median, high = torch.quantile(numbers, torch.tensor([0.25, 0.5, 0.75], dtype=torch.float64)).tolist()
    return Spread(median, low, high)


def orders(names: Sequence[str], seed: int = 0) -> Iterator[list[str]]:
    """For every round all of `names`, in random order."""
    generator = random.Random(seed)
    while True:
        yield generator.sample(list(names), len(names))


def interleave(
    calls: Mapping[str, Call],
    budget: Budget,
    device: torch.device,
    advance: Callable[[float], None] = lambda _: None,
    prepare: Callable[[int], None] = lambda _: None,
) -> dict[str, list[float]]:
    """Seconds of every call, by name, round after round. `advance` is told the share of work done;
    `prepare` is called before each round, outside of the clock.

    The first round warms up and is not counted, unless it took half of the budget: then warming up is
    small against the work, and dear.
    """
    seconds: dict[str, list[float]] = {name: [] for name in calls}
    started = time.perf_counter()
    for number, order in enumerate(orders(list(calls))):
        prepare(number)
        for name in order:
            seconds[name].append(clock(calls[name], number, device))
        spent = time.perf_counter() - started
        if number == 0 and spent < budget.seconds / 2:
            seconds = {name: [] for name in calls}
        rounds = len(seconds[order[0]])
        part = spent / budget.seconds if budget.seconds > 0 else 1.0
        advance(min(1.0, max(rounds / budget.most, min(rounds / budget.least, part))))
        if rounds >= budget.most or (rounds >= budget.least and spent >= budget.seconds):
            return seconds
    raise AssertionError("unreachable")


def clock(call: Call, number: int, device: torch.device) -> float:
    """Seconds that one sample takes, until the device has finished."""
    synchronise(device)
    start = time.perf_counter()
    call(number)
    synchronise(device)
    return time.perf_counter() - start


def synchronise(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.synchronize(device)
