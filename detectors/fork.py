"""The fork engine: n + 1 networks for little more than the price of two.

In eval mode BN(ωγ, ωβ) = ω · BN(γ, β), so an amplified layer of IBD-PSC (Hou et al., ICML 2024, section
4.2) is its plain layer times ω, and a variant equals the plain network up to its first amplified layer.
The base pass saves what is live there; a variant is computed from that point on, and variants that have
started run as one batch. No weight is copied and no prefix is computed twice.
"""

import itertools
from collections.abc import Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from detectors.amplification import check_counts, check_images, check_network
from detectors.base import InputError
from detectors.folding import fold_batch_norms
from detectors.segments import Point, amplification_levels, build_segment, live_values
from detectors.tracing import Trace, trace

__all__ = ["Fork", "Forks"]

REDUCED = (torch.bfloat16, torch.float16)


@dataclass(frozen=True)
class Forks:
    """What one base pass saved: the images, and the live values at every fork point, first to last."""

    images: Tensor
    points: tuple[tuple[Tensor, ...], ...]


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
    ) -> None:
        """`network` in eval mode on one device; `order` as `batch_norm_order` gives it; `counts` in any
        order, repetitions allowed; `example` (B ≥ 1, C, H, W) fixes C, H and W.

        `dtype` bfloat16 or float16 runs under autocast; images whose logits overflow there are computed
        again in float32. `channels_last` changes the strides of the network's own weights (not their
        values); `fold` folds BatchNorm into convolutions, which holds a second set of their weights.
        Raises `InputError`, and `UnsupportedNetwork` where the network cannot be traced.
        """
        check_network(network)
        check_counts(omega, counts, len(order))
        check_images(example, network)
        if dtype is not torch.float32 and dtype not in REDUCED:
            raise InputError(f"dtype must be float32, bfloat16 or float16, not {dtype}")
        if channels_last and example.ndim != 4:
            raise InputError(f"channels_last is for images (B, C, H, W), not {example.ndim} dimensions")
        self.counts = tuple(counts)
        self.omega = float(omega)
        self.network = network
        self.dtype = dtype
        self.format = torch.channels_last if channels_last else torch.contiguous_format
        self.shape = tuple(example.shape[1:])
        if channels_last:
            network.to(memory_format=torch.channels_last)
        traced = trace(network, example.contiguous(memory_format=self.format))
        folded = fold_batch_norms(traced) if fold else 0
        self.classes = int(traced.logits.meta["val"].shape[1])
        extras = [str(dtype).removeprefix("torch.")] * (dtype in REDUCED)
        extras += ["channels_last"] * channels_last + [f"{folded} layers folded"] * fold
        self.engine = f"fork ({', '.join(extras)})" if extras else "fork"
        self._cut(traced, order)

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
        self._segments = [
            build_segment(traced, nodes[first:last], inputs[part], outputs[part], levels, self.omega)
            for part, (first, last) in enumerate(itertools.pairwise(edges))
        ]

    @torch.inference_mode()
    def base(self, images: Tensor) -> tuple[Tensor, Forks]:
        """(B, C, H, W) of the example's C, H, W → plain logits (B, K) float32, and the fork points."""
        check_images(images, self.network)
        if tuple(images.shape[1:]) != self.shape:
            raise InputError(f"this engine takes images of shape {self.shape}, not {tuple(images.shape[1:])}")
        with self._arithmetic(images.device):
            logits, forks = self._base(images)
        if self.dtype in REDUCED:
            rows = _overflowing(logits[None])
            if rows is not None:
                logits = logits.index_copy(0, rows, self._base(images[rows])[0])
        return logits, forks

    @torch.inference_mode()
    def variants(self, forks: Forks, which: Sequence[int], rows: Tensor | None = None) -> Tensor:
        """Logits (len(which), R, K) float32 of the variants numbered `which` (≥ 1 of them, any order)
        for the images numbered `rows` (R,) int64 on the images' device, or for all."""
        with self._arithmetic(forks.images.device):
            logits = self._variants(forks, which, rows)
        if self.dtype in REDUCED:
            bad = _overflowing(logits)
            if bad is not None:
                images = (forks.images if rows is None else forks.images[rows])[bad]
                logits = logits.index_copy(1, bad, self._variants(self._base(images)[1], which, None))
        return logits

    def _arithmetic(self, device: torch.device) -> AbstractContextManager[Any]:
        return torch.autocast(device.type, self.dtype) if self.dtype in REDUCED else nullcontext()

    def _base(self, images: Tensor) -> tuple[Tensor, Forks]:
        nothing = [0] * (len(self.counts) + 1)
        values: tuple[Tensor, ...] = (images.contiguous(memory_format=self.format),)
        points = []
        for segment in self._segments[:-1]:
            values = segment(len(images), nothing, *values)
            points.append(values)
        (logits,) = self._segments[-1](len(images), nothing, *values)
        return logits.float(), Forks(images, tuple(points))

    def _variants(self, forks: Forks, which: Sequence[int], rows: Tensor | None) -> Tensor:
        count = len(forks.images) if rows is None else len(rows)
        ranks = sorted(self._rank[number] for number in which)
        joined = 0
        values: tuple[Tensor, ...] = ()
        for number in range(self._start[ranks[0]], len(self._points)):
            joining = sum(self._start[rank] == number for rank in ranks)
            if joining:
                values = self._join(values, forks.points[number], self._points[number], rows, joining)
                joined += joining
            # amplified[level]: the leading rows, those of the variants of rank < level.
            amplified = [
                count * sum(rank < level for rank in ranks[:joined]) for level in range(len(self.counts) + 1)
            ]
            values = self._segments[number + 1](count * joined, amplified, *values)
        parts = values[0].float().reshape(len(ranks), count, self.classes)
        places = [ranks.index(self._rank[number]) for number in which]
        return (
            parts if places == list(range(len(places))) else torch.stack([parts[place] for place in places])
        )

    def _join(
        self,
        values: tuple[Tensor, ...],
        saved: tuple[Tensor, ...],
        point: Point,
        rows: Tensor | None,
        joining: int,
    ) -> tuple[Tensor, ...]:
        """`values` with the rows of `joining` variants that start at `point` appended to each."""
        result = []
        for place, (value, shared) in enumerate(zip(saved, point.shared, strict=True)):
            if shared:
                result.append(value)
                continue
            # x[rows], not index_select, which forgets channels_last.
            fresh = value if rows is None else value[rows]
            if place == 0:
                fresh = fresh * self.omega
            parts = [*values[place : place + 1], *[fresh] * joining]
            result.append(torch.cat(parts) if len(parts) > 1 else fresh)
        return tuple(result)


def _overflowing(logits: Tensor) -> Tensor | None:
    """Rows of (n, R, K) with a value that is not finite, or None. Reads the device: one host sync."""
    bad = ~logits.isfinite().all(2).all(0)
    return bad.nonzero().squeeze(1) if bool(bad.any()) else None
