"""Pieces of a traced network between two fork points, each a module that runs any number of variants."""

from collections.abc import Sequence
from dataclasses import dataclass
from operator import add, getitem, mul

from torch import Tensor, fx

from detectors.base import UnsupportedNetwork
from detectors.in_place import overwrite
from detectors.tracing import Trace

__all__ = ["Point", "amplification_levels", "amplify_rows", "build_segment", "live_values"]


@dataclass(frozen=True)
class Point:
    """A fork point: the values `live` after it, the forking layer's own first.

    `shared` marks those without a batch axis (functions of the weights alone).
    """

    live: tuple[fx.Node, ...]
    shared: tuple[bool, ...]

    def split(self, values: tuple[Tensor, ...], rows: int) -> tuple[tuple[Tensor, ...], tuple[Tensor, ...]]:
        """The first `rows` rows of all values, and the others; views. Shared values are in both."""
        if rows == 0:
            return (), values
        pairs = [
            (value, value) if shared else (value[:rows], value[rows:])
            for value, shared in zip(values, self.shared, strict=True)
        ]
        return tuple(pair[0] for pair in pairs), tuple(pair[1] for pair in pairs)

    def take(self, values: tuple[Tensor, ...], rows: Tensor | None) -> tuple[Tensor, ...]:
        """`values` at `rows` (R,), or all of them. Not by index_select, which forgets channels_last."""
        if rows is None:
            return values
        return tuple(
            value if shared else value[rows] for value, shared in zip(values, self.shared, strict=True)
        )


def amplification_levels(traced: Trace, order: Sequence[str], counts: Sequence[int]) -> dict[fx.Node, int]:
    """How many variants amplify each BatchNorm call. A layer that runs twice is amplified twice."""
    depth = {name: len(order) - place for place, name in enumerate(order)}
    missing = set(order) - set(traced.layers.values())
    if missing:
        raise UnsupportedNetwork(f"layer {min(missing)!r} does not compute a plain batch_norm")
    return {
        node: sum(count >= depth[name] for count in counts)
        for node, name in traced.layers.items()
        if name in depth
    }


def live_values(traced: Trace, nodes: Sequence[fx.Node], cut: int) -> Point:
    """What is computed up to `nodes[cut]` and read after it, that layer's own value first."""
    later = set(nodes[cut + 1 :])
    before = [nodes[cut], traced.images, *nodes[:cut]]
    live = [node for node in before if later.intersection(node.users) or node is nodes[cut]]
    from_images, from_batch = traced.from_images(), traced.from_batch_size()
    for node in live:
        if node in from_batch or (node in from_images and not traced.rows_first(node)):
            raise UnsupportedNetwork(f"{node.name!r} lives across a fork without the images along axis 0")
    return Point(tuple(live), tuple(node not in from_images for node in live))


def amplify_rows(value: Tensor, rows: int | Tensor, omega: float) -> Tensor:
    """Multiply the first `rows` rows of `value`, a fresh tensor, by `omega` in place; or, where `rows` is
    a factor for every row (R,), return the product, rounded once to the dtype of `value`."""
    if isinstance(rows, Tensor):
        return (value * rows.view(-1, *[1] * (value.ndim - 1))).to(value.dtype)
    if rows:
        value[:rows].mul_(omega)
    return value


def build_segment(
    traced: Trace,
    nodes: Sequence[fx.Node],
    inputs: Sequence[fx.Node],
    outputs: Sequence[fx.Node],
    levels: dict[fx.Node, int],
    omega: float,
    one_dtype: bool = True,
) -> fx.GraphModule:
    """`nodes` as a module: (rows in the batch, amplified rows by level, *inputs) → outputs. `one_dtype`: it
    runs in the dtype that was traced, and not under autocast."""
    graph = fx.Graph()
    batch, amplified = graph.placeholder("batch"), graph.placeholder("amplified")
    copies = {node: graph.placeholder(node.name) for node in inputs}
    attributes: dict[str, Tensor] = {}
    inside = set(nodes)

    def copy_of(node: fx.Node) -> fx.Node:
        if node not in copies:
            if node in traced.constants:
                attributes[node.name] = traced.constants[node]
                copies[node] = graph.get_attr(node.name)
            else:  # a number: what the tracer saw is stale after a fork, so it is computed anew
                slope, offset = traced.linear(node)
                scaled = batch if slope == 1 else graph.call_function(mul, (batch, slope))
                copies[node] = graph.call_function(add, (scaled, offset)) if offset else scaled
        return copies[node]

    for node in nodes:
        copy = graph.node_copy(node, copy_of)
        copy.meta = {}  # the tracer's fake tensors are not needed any more
        overwrite(node, copy, inside, sums=one_dtype)
        if levels.get(node, 0):
            rows = graph.call_function(getitem, (amplified, levels[node]))
            copy = graph.call_function(amplify_rows, (copy, rows, omega))
        copies[node] = copy
    graph.output(tuple(copy_of(node) for node in outputs))
    return fx.GraphModule(attributes, graph)
