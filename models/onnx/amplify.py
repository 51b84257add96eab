"""Factors into an ONNX graph: what each amplifiable layer gives is multiplied by an input of the graph.

One more input (L, B) holds a factor for every layer and image. At 1 the graph is as it was; at
ω a BatchNorm behaves as if its γ and β were times ω, and so does a convolution that swallowed its BatchNorm.
"""

import copy
import re
from collections.abc import Container, Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import onnx
from onnx import ModelProto, NodeProto, TensorProto, helper, numpy_helper

from models.layers import Folded, Layer, Layers, choose

__all__ = ["FACTORS", "Found", "find_layers", "with_factors"]

FACTORS = "triggerwall.amplification"
QUANTISED = ("QuantizeLinear", "DequantizeLinear", "QLinearConv", "ConvInteger", "DynamicQuantizeLinear")
TORCHSCRIPT_MARK = re.compile(r"(onnx::Conv_)?\d+")
"""How PyTorch's TorchScript exporter names what folding gave; parameters keep their names."""


@dataclass(frozen=True)
class Value:
    """What a layer gives: its name in the graph, its number of dimensions and its ONNX element type."""

    name: str
    rank: int
    kind: int


@dataclass(frozen=True)
class Found:
    """A layer and the values that it gives; several where it runs more than once."""

    layer: Layer
    values: tuple[Value, ...]


def find_layers(model: ModelProto, folded: Folded) -> tuple[Layers, dict[str, Found]]:
    """The layers that can be amplified, in the order of the graph, and where they are.

    Raises `BundleError` as `choose` does.
    """
    found: dict[str, Found] = {}
    for layer, value in _layers(model):
        known = found.pop(layer.name, Found(layer, ()))  # one that runs twice stands where it ran last
        found[layer.name] = Found(layer, (*known.values, value))
    layers = choose([each.layer for each in found.values()], folded)
    quantised = sorted({node.op_type for node in model.graph.node} & set(QUANTISED))
    if quantised:
        why = f"the graph is quantised ({quantised[0]}): amplified values would be cut off"
        layers = Layers((), obstacle=why)
    return layers, found


def _layers(model: ModelProto) -> Iterator[tuple[Layer, Value]]:
    stored = {tensor.name: tensor for tensor in model.graph.initializer}
    normalised = {node.input[0] for node in model.graph.node if node.op_type == "BatchNormalization"}
    ranks = _value_ranks(model)
    for node in model.graph.node:
        weight = stored.get(node.input[1]) if len(node.input) > 1 else None
        kind = weight.data_type if weight is not None else TensorProto.FLOAT
        if node.op_type == "BatchNormalization" and not _attribute(node, "training_mode"):
            rank = ranks.get(node.output[0], ranks.get(node.input[0], 4))
            yield Layer(_name(node), "batch_norm"), Value(node.output[0], rank, kind)
        elif node.op_type == "Conv" and weight is not None and _has_own_bias(node, stored, normalised):
            layer = Layer(_name(node), "convolution", _marked(node))
            yield layer, Value(node.output[0], len(weight.dims), kind)


def _has_own_bias(node: NodeProto, stored: Container[str], normalised: Container[str]) -> bool:
    return len(node.input) == 3 and node.input[2] in stored and node.output[0] not in normalised


def _value_ranks(model: ModelProto) -> dict[str, int]:
    inferred = onnx.shape_inference.infer_shapes(model).graph
    values = [*inferred.value_info, *inferred.input, *inferred.output]
    return {each.name: len(each.type.tensor_type.shape.dim) for each in values}


def _attribute(node: NodeProto, name: str) -> int:
    return next((attribute.i for attribute in node.attribute if attribute.name == name), 0)


def _name(node: NodeProto) -> str:
    """What people know the layer by: the network's own name where the exporter kept it."""
    weight = node.input[1]
    if weight.endswith(".weight"):
        return str(weight.removesuffix(".weight"))
    return str(node.name or node.output[0])


def _marked(node: NodeProto) -> bool:
    """Whether only folding gives the convolution's bias that name: `conv.weight_bias` by PyTorch's exporter,
    `onnx::Conv_123` by its older one."""
    weight, bias = node.input[1], node.input[2]
    return bias == f"{weight}_bias" or bool(TORCHSCRIPT_MARK.fullmatch(bias))


def with_factors(model: ModelProto, found: Sequence[Found], most: int | None) -> ModelProto:
    """A copy of `model` in which row i of the input `FACTORS` (len(found), B) multiplies layer i; B is `most`
    or any."""
    changed = copy.deepcopy(model)
    graph = changed.graph
    graph.input.append(
        helper.make_tensor_value_info(FACTORS, TensorProto.FLOAT, [len(found), most or "images"])
    )
    places = {value.name: (row, value) for row, each in enumerate(found) for value in each.values}
    for rank in {value.rank for _, value in places.values()}:
        shape = np.array([-1] + [1] * (rank - 1), dtype=np.int64)
        graph.initializer.append(numpy_helper.from_array(shape, f"{FACTORS}.shape{rank}"))
    nodes = []
    for node in graph.node:
        nodes.append(node)
        if node.output and node.output[0] in places:
            row, value = places[node.output[0]]
            node.output[0] = f"{value.name}.plain"
            graph.initializer.append(numpy_helper.from_array(np.array(row), f"{value.name}.row"))
            nodes += _multiplication(value)
    del graph.node[:]
    graph.node.extend(nodes)
    return changed


def _multiplication(value: Value) -> list[NodeProto]:
    """`value` = `value`.plain times its row of the factors, one for each image."""
    name = value.name
    return [
        helper.make_node("Gather", [FACTORS, f"{name}.row"], [f"{name}.floats"], axis=0),
        helper.make_node("Cast", [f"{name}.floats"], [f"{name}.factors"], to=value.kind),
        helper.make_node("Reshape", [f"{name}.factors", f"{FACTORS}.shape{value.rank}"], [f"{name}.factor"]),
        helper.make_node("Mul", [f"{name}.plain", f"{name}.factor"], [name]),
    ]
