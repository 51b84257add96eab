"""The contenders of one subject against the clock at one batch size."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

from torch import Tensor

from bench.contenders import Contender
from bench.results import Row
from bench.subjects import Subject, batch_of
from bench.timing import Budget, Call, interleave

__all__ = ["Entered", "race"]

LEAST_IMAGES = 4
"""A sample is one batch, or as many small ones as make this many images: early exit differs by image."""


@dataclass
class Entered:
    """A contender that runs, and its row with what does not depend on the batch size."""

    contender: Contender
    row: Row


class Batches:
    """The batches of a round, put together before the clock starts: the same for every contender."""

    def __init__(self, subject: Subject, batch: int, passes: int) -> None:
        self.subject, self.batch, self.passes = subject, batch, passes
        self.ready: dict[str, list[Tensor]] = {}

    def prepare(self, number: int) -> None:
        first = number * self.passes
        self.ready = {
            kind: [batch_of(pool, self.batch, first + index) for index in range(self.passes)]
            for kind, pool in self.subject.pools.items()
        }


def race(
    subject: Subject,
    entered: Sequence[Entered],
    batch: int,
    budget: Budget,
    advance: Callable[[float], None] = lambda _: None,
) -> list[Row]:
    """Time all of `entered` on batches of `batch` images; one row each, seconds per batch."""
    passes = max(1, LEAST_IMAGES // batch)
    batches = Batches(subject, batch, passes)

    def sample(contender: Contender) -> Call:
        def run(_: int) -> None:
            for images in batches.ready[contender.traffic]:
                contender.call(images)

        return run

    calls = {one.contender.name: sample(one.contender) for one in entered}
    seconds = interleave(calls, budget, subject.device, advance, batches.prepare)
    return [
        replace(one.row, batch=batch, seconds=[s / passes for s in seconds[one.contender.name]])
        for one in entered
    ]
