"""The fork engine's segments through torch.compile, and eager again wherever that does not work.

The number of rows is compiled as a variable: a segment is then compiled a few times (torch tells one row, few
and many apart), not once for every batch size and number of variants. On a CPU convolution weights are
packed ahead besides (`freezing`). On CUDA the kernels of a segment are recorded as a CUDA graph for every
number of rows: there the engine pads batches to few sizes (`detectors.buckets`). On a CPU it does not, as
padding costs arithmetic and would save nothing.
"""

import logging
from collections.abc import Sequence
from contextlib import AbstractContextManager, nullcontext
from functools import lru_cache
from typing import Any

import torch
import torch._inductor.config
from torch import Tensor, fx, nn

__all__ = ["WARM", "Compilation", "compile_options", "packing"]

log = logging.getLogger("triggerwall.amplification")

Values = tuple[Tensor, ...]


WARM = (1, 2, 16, 64)
"""Numbers of images after which everything that torch compiles separately is compiled."""


def compile_options(device: torch.device) -> dict[str, Any]:
    """What torch.compile is told on `device`."""
    return {"mode": "reduce-overhead"} if device.type == "cuda" else {}


def packing(device: torch.device) -> AbstractContextManager[Any]:
    """Within it, what is compiled for a CPU has its weights packed. A setting of the process, since
    `torch.compile(options=...)` reaches the second half of the compiler only."""
    if device.type != "cpu":
        return nullcontext()
    patch: AbstractContextManager[Any] = torch._inductor.config.patch(freezing=True)
    return patch


class Compilation:
    """The segments of one engine, compiled. `why` is None while they are in use; whatever the compiler
    raises, at whichever call, the eager segments answer instead from then on, and `why` says what it was.
    """

    def __init__(self, omega: float, device: torch.device) -> None:
        self.omega, self.device = omega, device
        self.why: str | None = None

    def __call__(self, segment: fx.GraphModule) -> "Compiled":
        return Compiled(segment, self)

    def give_up(self, why: str) -> None:
        """Run eagerly from now on."""
        self.why = " ".join([line.strip() for line in why.splitlines() if line.strip()][:2])[:200]
        log.warning("torch.compile cannot be used and the fork engine runs eagerly: %s", self.why)


class Compiled(nn.Module):
    """One segment, called as the eager one: (rows, amplified rows by level, *values) → values."""

    def __init__(self, segment: fx.GraphModule, owner: Compilation) -> None:
        super().__init__()
        self.eager, self.owner = segment, owner
        self._compiled = torch.compile(on_tensors(segment), **compile_options(owner.device))

    def forward(self, rows: int, amplified: Sequence[int], *values: Tensor) -> Values:
        if self.owner.why is None:
            try:
                return self._run(rows, amplified, values)
            except torch.OutOfMemoryError:
                raise  # eager would need as much
            except Exception as error:  # no compiler, a full disk, a fault of the backend, ...
                self.owner.give_up(f"{type(error).__name__}: {error}")
        out: Values = self.eager(rows, amplified, *values)
        return out

    def _run(self, rows: int, amplified: Sequence[int], values: Values) -> Values:
        # torch compiles for tensors made in and outside of inference mode apart: make them all of one kind.
        values = tuple(value if value.is_inference() else value.clone() for value in values)
        factors = row_factors(rows, tuple(amplified), self.owner.omega, values[0].device)
        for value in (factors, *values):
            if value.shape[:1] == (rows,):
                torch._dynamo.maybe_mark_dynamic(value, 0)
        if self.owner.device.type == "cuda":
            torch.compiler.cudagraph_mark_step_begin()  # type: ignore[no-untyped-call]
        out: Values = self._compiled(factors, *values)
        # A recorded graph writes its outputs to the same memory at every replay.
        return tuple(value.clone() for value in out) if self.owner.device.type == "cuda" else out


def on_tensors(segment: fx.GraphModule) -> fx.GraphModule:
    """`segment` as a function of tensors alone: numbers of rows are then sizes, which may vary, and not
    constants. (factors (R, levels), *values) → values.

    A graph, as the code of a graph is its own: torch counts recompilations by code, not by module.
    """
    graph = fx.Graph()
    factors = graph.placeholder("factors")
    _, _, *inputs = segment.graph.find_nodes(op="placeholder")
    values = [graph.placeholder(node.name) for node in inputs]
    rows = graph.call_method("size", (factors, 0))
    levels = graph.call_method("unbind", (factors, 1))
    graph.output(graph.call_module("segment", (rows, levels, *values)))
    return fx.GraphModule({"segment": segment}, graph)


@lru_cache(maxsize=1024)
def row_factors(rows: int, amplified: tuple[int, ...], omega: float, device: torch.device) -> Tensor:
    """(rows, levels) float32: ω in the first `amplified[level]` rows of each column, else 1."""
    factors = torch.ones(rows, len(amplified))
    for level, leading in enumerate(amplified):
        factors[:leading, level] = omega
    return factors.to(device)
