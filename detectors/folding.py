"""BatchNorm folded into the convolution before it, in a traced network."""

from typing import Any

import torch
from torch.nn.utils.fusion import fuse_conv_bn_weights

from detectors.tracing import Trace

__all__ = ["fold_batch_norms"]

aten = torch.ops.aten
CONVOLUTIONS = frozenset(
    {aten.conv1d.default, aten.conv2d.default, aten.conv3d.default}
    | {aten.conv1d.padding, aten.conv2d.padding, aten.conv3d.padding}
)


def fold_batch_norms(trace: Trace) -> None:
    """Fold every BatchNorm that directly and solely follows a convolution into it.

    The convolution's value then stands in `trace.layers` for the layer: an amplified folded layer is
    still ω times its value. The folded weights are new tensors.
    """
    folded = 0
    for node, name in list(trace.layers.items()):
        convolution: Any = node.args[0]
        if convolution.target not in CONVOLUTIONS or len(convolution.users) != 1:
            continue
        if convolution in trace.layers:
            continue  # it has swallowed one BatchNorm already, and stands for that one
        operands = [*([*convolution.args[1:3], None][:2]), *node.args[1:5]]
        if any(operand is not None and operand not in trace.constants for operand in operands):
            continue  # weights that are themselves computed, such as standardised ones
        weight, bias, gamma, beta, mean, variance = (trace.constants.get(operand) for operand in operands)
        epsilon: Any = node.args[7]
        with torch.no_grad():
            fused = fuse_conv_bn_weights(weight, bias, mean, variance, epsilon, gamma, beta)  # type: ignore[arg-type]
        new = [
            trace.hold(tensor.detach(), f"{convolution.name}_folded_{role}", tensor.detach())
            for tensor, role in zip(fused, ("weight", "bias"), strict=True)
        ]
        convolution.args = (convolution.args[0], *new, *convolution.args[3:])
        node.replace_all_uses_with(convolution)
        trace.graph.erase_node(node)
        del trace.layers[node]
        trace.layers[convolution] = name
        folded += 1
    trace.drop_unused()
    trace.changes.append(f"{folded} layers folded")
