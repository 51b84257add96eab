"""A network as one functional ATen graph: what the fork engine cuts into segments.

torch.export gives the graph with a symbolic batch size, and `run_decompositions({})` rewrites in-place
operators into pure ones, so that a value saved at a fork can never be written to (docs/adr/0003).
"""

import operator
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, fx, nn
from torch.export import Dim, ExportedProgram, export
from torch.export.graph_signature import InputKind, OutputKind

from detectors.base import UnsupportedNetwork

__all__ = ["Trace", "trace"]

aten = torch.ops.aten
ASSERTIONS = frozenset(
    {aten._assert_tensor_metadata.default, aten._assert_scalar.default, aten._assert_async.msg}
    | {aten.sym_constrain_range.default, aten.sym_constrain_range_for_size.default}
)


@dataclass
class Trace:
    """`graph` maps `images` to `logits`; every other placeholder is a key of `constants`.

    `constants` holds the network's own tensors, not copies. `layers` names the BatchNorm layer behind
    each value that a BatchNorm call produced. `batch` is the symbol of the batch size. `changes` says
    what was done to the graph since.
    """

    graph: fx.Graph
    images: fx.Node
    logits: fx.Node
    constants: dict[fx.Node, Tensor]
    layers: dict[fx.Node, str]
    batch: Any
    changes: list[str] = field(default_factory=list)

    def is_scalar(self, node: fx.Node) -> bool:
        """True for a number, which can only be a function of the batch size."""
        return not isinstance(node.meta["val"], Tensor | tuple | list)

    def linear(self, node: fx.Node) -> tuple[int, int]:
        """(a, b) where the number `node` is a · batch + b."""
        value = node.meta["val"]
        expression = getattr(getattr(value, "node", None), "expr", None)
        if expression is not None:
            slope, offset = expression.coeff(self.batch, 1), expression.subs(self.batch, 0)
            exact = (expression - slope * self.batch - offset).expand() == 0
            if exact and slope.is_Integer and offset.is_Integer:
                return int(slope), int(offset)
        raise UnsupportedNetwork(f"it computes {value} from the batch size")

    def batch_axes(self, value: Tensor) -> list[int]:
        """Axes of `value` whose length depends on the batch size."""
        return [axis for axis, size in enumerate(value.shape) if _symbols(size)]

    def rows_first(self, node: fx.Node) -> bool:
        """True where `node` is a tensor with the images along axis 0 and nowhere else."""
        value = node.meta["val"]
        return (
            isinstance(value, Tensor)
            and self.batch_axes(value) == [0]
            and value.shape[0].node.expr == self.batch  # type: ignore[attr-defined]  # a SymInt
        )

    def hold(self, tensor: Tensor, name: str, like: Any) -> fx.Node:
        """A new constant called `name`, for tracing purposes `like` a tensor."""
        with self.graph.inserting_before(next(iter(self.graph.nodes))):
            node = self.graph.placeholder(name)
        node.meta["val"] = like
        self.constants[node] = tensor
        return node

    def drop_unused(self) -> None:
        """Let go of the constants that nothing reads any more."""
        for node in [node for node in self.constants if not node.users]:
            del self.constants[node]
            self.graph.erase_node(node)

    def from_images(self) -> set[fx.Node]:
        """The values that are computed from the images, and not only from weights and shapes."""
        found = {self.images}
        for node in self.graph.nodes:
            if not self.is_scalar(node) and found.intersection(node.all_input_nodes):
                found.add(node)
        return found

    def from_batch_size(self) -> set[fx.Node]:
        """The values that follow from the batch size alone, such as arange(B)."""
        found: set[fx.Node] = set()
        for node in self.graph.nodes:
            if self.is_scalar(node) or found.intersection(node.all_input_nodes):
                found.add(node)
        return found - self.from_images()


def _symbols(size: Any) -> set[Any]:
    return set(size.node.expr.free_symbols) if isinstance(size, torch.SymInt) else set()


def trace(network: nn.Module, example: Tensor) -> Trace:
    """Trace `network`, in eval mode, on `example` (B, C, H, W) with B ≥ 1; shares all its tensors.

    Raises `UnsupportedNetwork`, with a short reason, for a network whose control flow depends on pixel
    values or on the batch size, that writes to its buffers or its input, that mixes the images of a
    batch, or that returns anything but one tensor (B, K).
    """
    program = _export(network, example)
    graph = program.graph_module.graph
    constants = _constants(program)
    (images,) = [node for node in graph.find_nodes(op="placeholder") if node not in constants]
    logits = _only_output(program, graph)
    for node in list(graph.nodes):
        _make_plain(graph, node)
    graph.eliminate_dead_code()
    logits = graph.output_node().args[0][0]
    graph.erase_node(graph.output_node())
    batch = images.meta["val"].shape[0].node.expr
    result = Trace(graph, images, logits, constants, {}, batch)
    result.layers.update(_batch_norm_layers(result, network, program))
    _check(result)
    return result


def _export(network: nn.Module, example: Tensor) -> ExportedProgram:
    # Two images at least: export bakes in whatever it concludes from a batch of exactly one.
    images = example[:2] if len(example) > 1 else torch.cat([example, example])
    try:
        with torch.no_grad():
            program = export(network, (images,), dynamic_shapes=({0: Dim("batch", min=1)},), strict=False)
            functional: ExportedProgram = program.run_decompositions({})
            return functional
    except Exception as error:  # whatever a stranger's forward() and the tracer may raise
        raise UnsupportedNetwork(f"torch.export cannot trace it: {_reason(error)}") from error


def _reason(error: Exception) -> str:
    text = str(error).strip() or type(error).__name__
    if text.startswith("Constraints violated"):
        return "its code depends on the batch size, as len(x) does and x.size(0) does not"
    return text.splitlines()[0][:160]


def _constants(program: ExportedProgram) -> dict[fx.Node, Tensor]:
    tensors: dict[str, Any] = {**program.constants, **program.state_dict}
    constants: dict[fx.Node, Tensor] = {}
    inputs = {spec.arg.name: spec for spec in program.graph_signature.input_specs}
    for node in program.graph_module.graph.find_nodes(op="placeholder"):
        spec = inputs[node.name]
        if spec.kind is InputKind.USER_INPUT:
            continue
        tensor = tensors.get(spec.target or "")
        if not isinstance(tensor, Tensor):
            raise UnsupportedNetwork(f"it holds {spec.target!r}, which is not a tensor")
        constants[node] = tensor
    return constants


def _only_output(program: ExportedProgram, graph: fx.Graph) -> fx.Node:
    kinds = {spec.kind for spec in program.graph_signature.output_specs}
    if kinds != {OutputKind.USER_OUTPUT}:
        raise UnsupportedNetwork("it writes to its buffers or to its input")
    outputs: Any = graph.output_node().args[0]
    if len(outputs) != 1 or not isinstance(outputs[0], fx.Node):
        raise UnsupportedNetwork("it does not return one tensor")
    return outputs[0]


def _make_plain(graph: fx.Graph, node: fx.Node) -> None:
    """Drop assertions; undo two rewritings of the tracer that are only right for the traced strides
    (`view`) or slower (`_native_batch_norm_legit_no_training` returns statistics that nobody reads)."""
    if node.target in ASSERTIONS:
        graph.erase_node(node)
    elif node.target is aten.view.default:
        node.target = aten.reshape.default
    elif node.target is aten._native_batch_norm_legit_no_training.default:
        x, weight, bias, mean, var, momentum, eps = node.args
        with graph.inserting_before(node):
            arguments = (x, weight, bias, mean, var, False, momentum, eps, torch.backends.cudnn.enabled)
            plain = graph.call_function(aten.batch_norm.default, arguments)
        plain.meta["val"] = node.meta["val"][0]
        for item in list(node.users):  # getitem; only the first output has users
            item.replace_all_uses_with(plain)


def _batch_norm_layers(trace: Trace, network: nn.Module, program: ExportedProgram) -> dict[fx.Node, str]:
    """Which module each BatchNorm call belongs to: the owner of its running mean."""
    owners = {spec.arg.name: spec.target or "" for spec in program.graph_signature.input_specs}
    names = {module: name for name, module in network.named_modules()}  # one name a module
    layers: dict[fx.Node, str] = {}
    for node in trace.graph.find_nodes(op="call_function", target=aten.batch_norm.default):
        mean, training = node.args[3], node.args[5]
        if training or mean not in trace.constants:
            raise UnsupportedNetwork("a BatchNorm call uses the statistics of its batch")
        path = owners[mean.name].rpartition(".")[0]
        layers[node] = names[network.get_submodule(path)]
    return layers


def _check(trace: Trace) -> None:
    images = trace.from_images()
    for node in trace.graph.nodes:
        if node.op == "call_function" and not trace.is_scalar(node):
            _check_operator(node)
        value = node.meta["val"]
        if node in images and isinstance(value, Tensor) and not trace.batch_axes(value):
            raise UnsupportedNetwork(f"{node.name!r} mixes the images of a batch")
    if not trace.rows_first(trace.logits) or trace.logits.meta["val"].ndim != 2:
        raise UnsupportedNetwork("it does not return logits of shape (B, K)")


def _check_operator(node: fx.Node) -> None:
    target: Any = node.target
    if target is operator.getitem:
        return
    if not isinstance(target, torch._ops.OpOverload) or node.op != "call_function":
        raise UnsupportedNetwork(f"it calls {node.name!r}, which is not a plain tensor operator")
    if target._schema.is_mutable or target in (aten.as_strided.default, aten.item.default):
        raise UnsupportedNetwork(f"it calls {target}")
