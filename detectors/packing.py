"""A network whose convolutions keep their weights in the layout that the processor's kernels read.

oneDNN, which runs convolutions on a CPU, has blocked layouts of its own and reorders ordinary weights at
every call. That takes as long for one image as for a hundred: for one image it is half of a ResNet-18.
Packed once, the weights are held twice, and whoever runs the network in float32 can share them:
predictions, copies of images, and the fork engine's segments.
"""

from typing import Any, cast

import torch
from torch import Tensor, fx, nn
from torch.utils.flop_counter import conv_flop_count, register_flop_formula

from detectors.agreement import check_agreement, logits_and_tolerance
from detectors.base import UnsupportedNetwork
from detectors.folding import fold_batch_norms
from detectors.in_place import PACKED_CONVOLUTION, overwrite
from detectors.tracing import Trace, trace

__all__ = ["PackedNetwork", "pack_convolutions", "pack_network"]

aten = torch.ops.aten
# Bias, stride, padding, dilation and groups of aten.conv2d.
DEFAULTS: list[Any] = [None, [1, 1], [0, 0], [1, 1], 1]
ONE_IMAGE = 1  # the batch size to pack for; 32 instead made no difference, to one image or to 64


def _flops(images: Any, weight: Any, *_: Any, out_shape: Any = None, **__: Any) -> int:
    """That of an ordinary convolution."""
    return int(conv_flop_count(images, weight, out_shape))


if PACKED_CONVOLUTION is not None:
    register_flop_formula(PACKED_CONVOLUTION)(_flops)


def pack_convolutions(traced: Trace) -> None:
    """Pack the weights of every two-dimensional float32 convolution on a CPU.

    Raises `UnsupportedNetwork` where there is none or this build of torch has no such convolutions, and
    whatever torch raises that cannot make them.
    """
    if PACKED_CONVOLUTION is None:
        raise UnsupportedNetwork("this build of torch has no convolutions with packed weights")
    packed = 0
    for node in traced.graph.find_nodes(op="call_function", target=aten.conv2d.default):
        arguments: list[Any] = list(node.args)
        images, weight, bias, stride, padding, dilation, groups = arguments + DEFAULTS[len(arguments) - 2 :]
        tensor = traced.constants.get(weight)
        if tensor is None or tensor.dtype is not torch.float32 or tensor.device.type != "cpu":
            continue
        size = [ONE_IMAGE, *map(int, images.meta["val"].shape[1:])]
        plain = tensor.detach().to_mkldnn()
        layout = _reorder(plain, padding, stride, dilation, groups, size)
        held = traced.hold(layout, f"{node.name}_packed", tensor)
        node.target = PACKED_CONVOLUTION.default
        node.args = (images, held, bias, padding, stride, dilation, groups, "none", [], "")
        packed += 1
    if not packed:
        raise UnsupportedNetwork("it has no convolution whose weights could be packed")
    traced.drop_unused()
    traced.changes.append(f"{packed} convolutions packed")


def _reorder(weight: Tensor, *geometry: Any) -> Tensor:
    packed: Tensor = cast(Any, torch._C._nn).mkldnn_reorder_conv2d_weight(weight, *geometry)
    return packed


class PackedNetwork(nn.Module):
    """Pixels (B, C, H, W) float32 → logits (B, K), by `trace`, which `detectors.fork.Fork` can share.

    `engine` says what was done, for the operator.
    """

    def __init__(self, traced: Trace) -> None:
        super().__init__()
        self.trace = traced
        self.engine = f"traced ({', '.join(traced.changes)})"
        self.run = _whole(traced)

    def forward(self, images: Tensor) -> Tensor:
        logits: Tensor = self.run(images.contiguous())
        return logits


def _whole(traced: Trace) -> fx.GraphModule:
    """The whole of `traced` as one module: images → logits."""
    graph = fx.Graph()
    images = graph.placeholder("images")
    copies: dict[fx.Node, fx.Node] = {traced.images: images}
    attributes: dict[str, Tensor] = {}
    for node in traced.graph.nodes:
        if node in traced.constants:
            attributes[node.name] = traced.constants[node]
            copies[node] = graph.get_attr(node.name)
        elif node.op == "call_function":
            copies[node] = graph.node_copy(node, lambda argument: copies[argument])
            overwrite(node, copies[node], copies, sums=True)
    graph.output(copies[traced.logits])
    return fx.GraphModule(attributes, graph)


@torch.inference_mode()
def pack_network(network: nn.Module, example: Tensor) -> PackedNetwork:
    """`network`, in eval mode on a CPU, traced, its BatchNorms folded and its convolutions packed; its own
    weights stay as they are. `example` (B ≥ 1, C, H, W) in [0, 1] fixes C, H and W.

    Raises `UnsupportedNetwork`, with the reason, where it cannot be traced, has nothing to pack, or does not
    give the logits of `network` on `example`: of all images, or of one alone.
    """
    if example.device.type != "cpu":
        raise UnsupportedNetwork(f"weights are packed for a CPU, not for {example.device}")
    traced = trace(network, example)
    try:
        fold_batch_norms(traced)
        pack_convolutions(traced)
        packed = PackedNetwork(traced)
        logits, tolerance = logits_and_tolerance(network, example)
        check_agreement(packed(example), logits, tolerance, "packed")
        check_agreement(packed(example[:1]), network(example[:1]), tolerance, "packed, one image")
    except UnsupportedNetwork:
        raise
    except Exception as error:  # an operator that this build of torch or this processor lacks
        said = (str(error).splitlines() or [""])[0][:160]
        raise UnsupportedNetwork(f"{type(error).__name__}: {said}") from error
    return packed
