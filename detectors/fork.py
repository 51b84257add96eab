"""The fork engine: n + 1 networks for little more than the price of two.

In eval mode BN(ωγ, ωβ) = ω · BN(γ, β), so an amplified layer of IBD-PSC (Hou et al., ICML 2024, section
4.2) is its plain layer times ω, and a variant equals the plain network up to its first amplified layer.
The base pass saves what is live there; a variant is computed from that point on, and variants that have
started run as one batch where the device gains by it. No weight is copied and no prefix is computed twice.
"""

import itertools
from collections.abc import Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, field, replace
from typing import Any

import torch
from torch import Tensor, nn

from detectors.amplification import check_counts, check_images, check_network
from detectors.base import InputError
from detectors.buckets import bucket, pad_images, pad_rows
from detectors.compiling import Compilation
from detectors.folding import fold_batch_norms
from detectors.segments import Point, amplification_levels, build_segment, live_values
from detectors.tracing import Trace, trace

__all__ = ["Fork", "Forks"]

REDUCED = (torch.bfloat16, torch.float16)
ROWS_ALONG = 32
"""Variants run along with the base up to so many rows in all. One pass then took 0.8 times as long as two
(ResNet-18, one image, n = 5); from 96 rows on it took longer, as the rows outgrow the caches."""
ROWS_TOGETHER = 64
"""Rows of started variants that a CPU runs as one batch, for the same reason. All five at once took 1.1 times
as long for 32 images and 1.3 times for 128 (ResNet-18; ResNet-20: 1.2 and 1.6). A GPU runs all at once."""


@dataclass(frozen=True)
class Forks:
    """What one base pass saved: the images, the live values at every fork point, first to last (none where
    no variant is left to start), and the logits (B, K) of the variants that ran along, by number."""

    images: Tensor
    points: tuple[tuple[Tensor, ...], ...]
    known: Mapping[int, Tensor] = field(default_factory=dict)


class Fork:
    """One network that behaves as n + 1; satisfies `detectors.amplification.Amplified`."""

    def __init__(
        self,
        network: nn.Module,
        omega: float,
        counts: Sequence[int],
        order: Sequence[str],
        example: Tensor,
        *,
        dtype: torch.dtype = torch.float32,
        channels_last: bool = False,
        fold: bool = False,
        compile: bool = False,
        bucketed: bool | None = None,
        traced: Trace | None = None,
    ) -> None:
        """`network` in eval mode on one device; `order` as `batch_norm_order` gives it; `counts` in any
        order, repetitions allowed; `example` (B ≥ 1, C, H, W) fixes C, H and W.

        `dtype` bfloat16 or float16 runs under autocast; images whose logits overflow there are computed
        again in float32. `channels_last` changes the strides of the network's own weights (not their
        values); `fold` folds BatchNorm into convolutions, which holds a second set of their weights.
        `compile` hands the segments to torch.compile at their first call (another set of weights on a CPU),
        and runs them eagerly where that fails; `bucketed` pads batches to few sizes, by default where
        each size is compiled. `traced`, of this network and images of this shape, is shared as it is
        instead of tracing (and folding) again; it goes with no other arithmetic. Raises `InputError`, and
        `UnsupportedNetwork` where it cannot be traced.
        """
        check_network(network)
        check_counts(omega, counts, len(order))
        check_images(example, network)
        if dtype is not torch.float32 and dtype not in REDUCED:
            raise InputError(f"dtype must be float32, bfloat16 or float16, not {dtype}")
        if channels_last and example.ndim != 4:
            raise InputError(f"channels_last is for images (B, C, H, W), not {example.ndim} dimensions")
        if traced is not None and (dtype in REDUCED or channels_last or compile):
            raise InputError("a network that is traced already keeps its own arithmetic: ask for no other")
        self.counts = tuple(counts)
        self.omega = float(omega)
        self.network = network
        self.dtype = dtype
        self.compilation = Compilation(self.omega, example.device) if compile else None
        self.bucketed = compile and example.device.type == "cuda" if bucketed is None else bucketed
        self.format = torch.channels_last if channels_last else torch.contiguous_format
        self.shape = tuple(example.shape[1:])
        if channels_last:
            network.to(memory_format=torch.channels_last)
        if traced is None:
            traced = trace(network, example.contiguous(memory_format=self.format))
            if fold:
                fold_batch_norms(traced)
        self.classes = int(traced.logits.meta["val"].shape[1])
        self._told = [str(dtype).removeprefix("torch.")] * (dtype in REDUCED)
        self._told += ["channels_last"] * channels_last + traced.changes
        self._cut(traced, order)

    @property
    def engine(self) -> str:
        told = list(self._told)
        if self.compilation is not None:
            why = self.compilation.why
            told.append("compiled" if why is None else f"eager, as torch.compile failed: {why}")
        return f"fork ({', '.join(told)})" if told else "fork"

    def _cut(self, traced: Trace, order: Sequence[str]) -> None:
        """Cut the graph at each variant's first amplified layer.

        Variants are ranked deepest first. As each amplifies a superset of the next, the variants that
        amplify a layer are always the first `level` of the ranking, and they join in this order.
        """
        ranking = sorted(range(len(self.counts)), key=lambda number: -self.counts[number])
        self._rank = {number: rank for rank, number in enumerate(ranking)}
        levels = amplification_levels(traced, order, self.counts)
        nodes = [node for node in traced.graph.nodes if node.op == "call_function"]
        nodes = [node for node in nodes if not traced.is_scalar(node)]
        starts = [
            next(place for place, node in enumerate(nodes) if levels.get(node, 0) > rank)
            for rank in range(len(ranking))
        ]
        cuts = sorted(set(starts))
        self._start = [cuts.index(start) for start in starts]  # rank → number of its fork point
        self._points = [live_values(traced, nodes, cut) for cut in cuts]
        edges = [0, *(cut + 1 for cut in cuts), len(nodes)]
        inputs = [(traced.images,), *(point.live for point in self._points)]
        outputs = [*(point.live for point in self._points), (traced.logits,)]
        one_dtype = self.dtype not in REDUCED
        segments = [
            build_segment(
                traced, nodes[first:last], inputs[part], outputs[part], levels, self.omega, one_dtype
            )
            for part, (first, last) in enumerate(itertools.pairwise(edges))
        ]
        compiled = self.compilation
        self._segments: list[nn.Module] = [compiled(part) if compiled else part for part in segments]

    @torch.inference_mode()
    def base(self, images: Tensor, first: Sequence[int] = ()) -> tuple[Tensor, Forks]:
        """(B, C, H, W) of the example's C, H, W → plain logits (B, K) float32, and the fork points.

        Of few images the variants numbered `first` run in the same pass: a layer then meets the rows of all
        of them as one batch and reads its weights once, which is most of what so few rows cost.
        """
        check_images(images, self.network)
        if tuple(images.shape[1:]) != self.shape:
            raise InputError(f"this engine takes images of shape {self.shape}, not {tuple(images.shape[1:])}")
        if len(images) * (1 + len(first)) > ROWS_ALONG:
            first = ()
        with self._arithmetic(images.device):
            logits, forks = self._base(images, first)
        if self.dtype in REDUCED:
            bad = _overflowing(torch.stack([logits, *forks.known.values()]))
            if bad is not None:
                exact, again = self._base(images[bad], first)
                logits = logits.index_copy(0, bad, exact)
                known = {n: old.index_copy(0, bad, again.known[n]) for n, old in forks.known.items()}
                forks = replace(forks, known=known)
        return logits, forks

    @torch.inference_mode()
    def variants(self, forks: Forks, which: Sequence[int], rows: Tensor | None = None) -> Tensor:
        """Logits (len(which), R, K) float32 of the variants numbered `which` (≥ 1 of them, any order)
        for the images numbered `rows` (R,) int64 on the images' device, or for all."""
        if not which or (rows is not None and len(rows) == 0):
            raise InputError("name at least one variant and at least one image to run it on")
        missing = [number for number in dict.fromkeys(which) if number not in forks.known]
        if len(missing) == len(which):
            return self._checked(forks, missing, rows)
        found = {n: known if rows is None else known[rows] for n, known in forks.known.items() if n in which}
        if missing:
            found |= dict(zip(missing, self._checked(forks, missing, rows), strict=True))
        return torch.stack([found[number] for number in which])

    def _checked(self, forks: Forks, which: Sequence[int], rows: Tensor | None) -> Tensor:
        """As `_variants`, in the arithmetic asked for; rows that overflow in it are run in float32."""
        size = len(which)
        if forks.images.device.type == "cpu":
            size = max(1, ROWS_TOGETHER // (len(forks.images) if rows is None else len(rows)))
        groups = [which[start : start + size] for start in range(0, len(which), size)]
        with self._arithmetic(forks.images.device):
            logits = torch.cat([self._variants(forks, group, rows) for group in groups])
        if self.dtype in REDUCED:
            bad = _overflowing(logits)
            if bad is not None:
                images = (forks.images if rows is None else forks.images[rows])[bad]
                logits = logits.index_copy(1, bad, self._variants(self._base(images)[1], which, None))
        return logits

    def _arithmetic(self, device: torch.device) -> AbstractContextManager[Any]:
        return torch.autocast(device.type, self.dtype) if self.dtype in REDUCED else nullcontext()

    def _base(self, images: Tensor, first: Sequence[int] = ()) -> tuple[Tensor, Forks]:
        """Rows of variants that have started come first, deepest variant first, and the plain rows last."""
        ranks = sorted({self._rank[number] for number in first})
        waiting = {start for rank, start in enumerate(self._start) if rank not in ranks}
        padded = pad_images(images) if self.bucketed else images
        count, joined = len(padded), 0
        values: tuple[Tensor, ...] = (padded.contiguous(memory_format=self.format),)
        points: list[tuple[Tensor, ...]] = []
        for number, point in enumerate(self._points):
            values = self._run(number, ranks[:joined], count, 1, values)
            started, plain = point.split(values, joined * count)
            points.append(plain if number in waiting else ())
            joining = sum(self._start[rank] == number for rank in ranks)
            if joining:
                values = self._join(point, started, plain, joining, plain)
                joined += joining
        (logits,) = self._run(len(self._points), ranks, count, 1, values)
        parts = logits.float().view(-1, count, self.classes)[:, : len(images)]
        numbers = {rank: number for number, rank in self._rank.items()}
        known = {numbers[rank]: part for rank, part in zip(ranks, parts, strict=False)}
        return parts[-1], Forks(images, tuple(points), known)

    def _variants(self, forks: Forks, which: Sequence[int], rows: Tensor | None) -> Tensor:
        count = len(forks.images) if rows is None else len(rows)
        index = pad_rows(rows) if self.bucketed and rows is not None else rows
        ranks = sorted(self._rank[number] for number in which)
        size = bucket(count) if self.bucketed else count
        joined = 0
        values: tuple[Tensor, ...] = ()
        for number in range(self._start[ranks[0]], len(self._points)):
            joining = sum(self._start[rank] == number for rank in ranks)
            if joining:
                point = self._points[number]
                values = self._join(point, values, point.take(forks.points[number], index), joining)
                joined += joining
            values = self._run(number + 1, ranks[:joined], size, 0, values)
        parts = values[0].float().view(-1, size, self.classes)[:, :count]
        places = [ranks.index(self._rank[number]) for number in which]
        return (
            parts if places == list(range(len(places))) else torch.stack([parts[place] for place in places])
        )

    def _run(
        self, number: int, ranks: Sequence[int], count: int, plain: int, values: tuple[Tensor, ...]
    ) -> tuple[Tensor, ...]:
        """Segment `number`: `count` rows for each variant of `ranks`, then as many for `plain` plain ones."""
        # amplified[level]: the leading rows, those of the variants of rank < level.
        amplified = [count * sum(rank < level for rank in ranks) for level in range(len(self.counts) + 1)]
        out: tuple[Tensor, ...] = self._segments[number]((len(ranks) + plain) * count, amplified, *values)
        return out

    def _join(
        self,
        point: Point,
        started: tuple[Tensor, ...],
        fresh: tuple[Tensor, ...],
        joining: int,
        plain: tuple[Tensor, ...] = (),
    ) -> tuple[Tensor, ...]:
        """Rows of the variants that have `started`, then of `joining` ones that start here from `fresh`
        rows, then the `plain` rows where the base runs along."""
        result = []
        for place, shared in enumerate(point.shared):
            if shared:
                result.append(fresh[place])
                continue
            new = fresh[place] * self.omega if place == 0 else fresh[place]
            parts = [*started[place : place + 1], *[new] * joining, *plain[place : place + 1]]
            result.append(torch.cat(parts) if len(parts) > 1 else new)
        return tuple(result)


def _overflowing(logits: Tensor) -> Tensor | None:
    """Rows of (n, R, K) with a value that is not finite, or None. Reads the device: one host sync."""
    bad = ~logits.isfinite().all(2).all(0)
    return bad.nonzero().squeeze(1) if bool(bad.any()) else None
