"""Operators of a traced network that may overwrite their operand instead of asking for new memory.

A tracer rewrites in-place operators into pure ones, so that what a fork saves is never written to. Where a
value was made in the same segment and nothing else reads it, pure only costs: an allocation, and one more
tensor through the caches. What is computed is the same to the last bit.
"""

from collections.abc import Container
from typing import Any

import torch
from torch import Tensor, fx

__all__ = ["PACKED_CONVOLUTION", "overwrite"]

aten = torch.ops.aten
# None in a build of torch without oneDNN.
PACKED_CONVOLUTION = getattr(torch.ops.mkldnn, "_convolution_pointwise", None)
OVERWRITING: dict[Any, Any] = {
    aten.relu.default: aten.relu_.default,
    aten.hardtanh.default: aten.hardtanh_.default,
    aten.silu.default: aten.silu_.default,
    aten.hardswish.default: aten.hardswish_.default,
}
# What these give is new memory, which no operand shares.
FRESH = {aten.conv1d.default, aten.conv2d.default, aten.conv3d.default, aten.batch_norm.default}
FRESH |= {aten.add.Tensor, *OVERWRITING}
if PACKED_CONVOLUTION is not None:
    FRESH.add(PACKED_CONVOLUTION.default)


def overwrite(node: fx.Node, copy: fx.Node, inside: Container[fx.Node], sums: bool) -> None:
    """Let `copy`, which stands for the traced `node`, overwrite an operand that was made `inside` and that
    nobody else reads. `sums` lets a sum do so too: right only where its terms have one dtype when it runs,
    which autocast does not promise."""
    if node.target in OVERWRITING:
        if _ours(node.args[0], inside):
            copy.target = OVERWRITING[node.target]
    elif sums and node.target is aten.add.Tensor and not node.kwargs and _alike(node, *node.args):
        for place in (0, 1):
            if _ours(node.args[place], inside):
                copy.target, copy.args = aten.add_.Tensor, (copy.args[place], copy.args[1 - place])
                return


def _ours(value: Any, inside: Container[fx.Node]) -> bool:
    return value in inside and value.target in FRESH and len(value.users) == 1


def _alike(*nodes: Any) -> bool:
    """Tensors of one shape and dtype: nothing is broadcast or promoted."""
    values: list[Any] = [node.meta["val"] if isinstance(node, fx.Node) else None for node in nodes]
    return all(
        isinstance(value, Tensor)
        and value.dtype == values[0].dtype
        and str(value.shape) == str(values[0].shape)  # sizes may be symbols
        for value in values
    )
