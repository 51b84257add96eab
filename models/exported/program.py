"""An exported program as a plain module whose BatchNorms are layers again.

In the graph a BatchNorm is a call like any other. Put back as `nn.BatchNorm` modules, and as identities
behind convolutions that swallowed theirs, they can be found, copied and amplified as in the network that was
exported.
"""

from typing import Any

import torch
from torch import Tensor, fx, nn
from torch.export import ExportedProgram

from models.batches import BatchBounds
from models.errors import ArchitectureError
from models.layers import Folded, Layer, Layers, choose

__all__ = ["batch_bounds", "image_input", "network_of"]

aten = torch.ops.aten
BATCH_NORM = aten.batch_norm.default
DECOMPOSED = aten._native_batch_norm_legit_no_training.default
IN_TRAINING = (aten._native_batch_norm_legit.default, aten._native_batch_norm_legit_functional.default)
CONVOLUTIONS = frozenset(
    {aten.conv1d.default, aten.conv2d.default, aten.conv3d.default, aten.convolution.default}
    | {aten.conv1d.padding, aten.conv2d.padding, aten.conv3d.padding}
)
NORMS = {2: nn.BatchNorm1d, 3: nn.BatchNorm1d, 4: nn.BatchNorm2d, 5: nn.BatchNorm3d}


def image_input(program: ExportedProgram) -> Tensor:
    """The (fake) tensor that the program was exported with. Raises `ArchitectureError`."""
    inputs, outputs = program.graph_signature.user_inputs, program.graph_signature.user_outputs
    if len(inputs) != 1 or len(outputs) != 1:
        raise ArchitectureError(
            f"the program has {len(inputs)} inputs and {len(outputs)} outputs; a classifier has one of each: "
            "export a network that takes images and returns logits"
        )
    (node,) = [node for node in program.graph.nodes if node.name == inputs[0]]
    value: Any = node.meta["val"]
    if not isinstance(value, Tensor) or value.dtype != torch.float32:
        raise ArchitectureError(f"the program takes {getattr(value, 'dtype', value)}; export it in float32")
    return value


def batch_bounds(program: ExportedProgram) -> BatchBounds:
    """How many images the program takes at once."""
    size: Any = image_input(program).shape[0]
    if isinstance(size, int):
        return size, size
    limits = program.range_constraints.get(size.node.expr)
    if limits is None:
        return 1, None
    return max(1, int(limits.lower)), int(limits.upper) if limits.upper.is_Integer else None


def network_of(program: ExportedProgram, folded: Folded) -> tuple[nn.Module, Layers]:
    """`program` as a module in eval mode, with the layers that can be amplified.

    Raises `ArchitectureError` for a program that was exported in train mode, `BundleError` as `choose` does.
    """
    lifted = program.module(check_guards=False)
    module = fx.GraphModule(lifted, lifted.graph)  # a copy that knows eval()
    nodes = [node for node in module.graph.nodes if node.op == "call_function"]
    found = {node: layer for node in nodes if (layer := _layer_of(node)) is not None}
    layers = choose(list(dict.fromkeys(found.values())), folded)
    for node, layer in found.items():
        if layer.kind == "batch_norm":
            _restore(module, node, layer.name)
        elif layer.name in layers.folded:
            _put_identity(module, node, layer.name)
    module.graph.eliminate_dead_code()
    module.delete_all_unused_submodules()
    module.recompile()
    return module.eval(), layers


def _layer_of(node: fx.Node) -> Layer | None:
    if _trains(node):
        raise ArchitectureError("the program was exported in train mode: call .eval() on the network first")
    if node.target in (BATCH_NORM, DECOMPOSED):
        mean = node.args[3]
        return Layer(_owner(mean), "batch_norm") if _is_attribute(mean) else None
    if node.target not in CONVOLUTIONS or len(node.args) < 3 or not _is_attribute(node.args[2]):
        return None
    if any(user.target in (BATCH_NORM, DECOMPOSED) for user in node.users):
        return None
    return Layer(_owner(node.args[1]), "convolution") if _is_attribute(node.args[1]) else None


def _trains(node: fx.Node) -> bool:
    if node.target is BATCH_NORM:
        return bool(node.args[5])
    return node.target in IN_TRAINING or (node.target is aten.dropout.default and bool(node.args[2]))


def _is_attribute(value: Any) -> bool:
    return isinstance(value, fx.Node) and value.op == "get_attr"


def _owner(node: Any) -> str:
    """The module whose parameter `node` is."""
    return str(node.target).rpartition(".")[0] or str(node.target)


def _restore(module: fx.GraphModule, node: fx.Node, name: str) -> None:
    """Call an `nn.BatchNorm` module with the call's own tensors in place of `node`."""
    plain = node.target is BATCH_NORM
    value = node.meta["val"] if plain else node.meta["val"][0]
    place = f"{name}.batch_norm"
    if place not in dict(module.named_modules()):  # else the layer is called a second time
        gamma, beta, mean, variance = (_tensor(module, argument) for argument in node.args[1:5])
        assert mean is not None
        epsilon: Any = node.args[7 if plain else 6]
        layer = NORMS[value.ndim](len(mean), epsilon, affine=gamma is not None)
        layer.running_mean, layer.running_var = mean, variance
        if gamma is not None and beta is not None:
            layer.weight, layer.bias = nn.Parameter(gamma, False), nn.Parameter(beta, False)
        module.add_submodule(place, layer)
    with module.graph.inserting_before(node):
        call = module.graph.call_module(place, (node.args[0],))
    for replaced in [node] if plain else list(node.users):  # of (output, two statistics) the output is read
        replaced.replace_all_uses_with(call)


def _put_identity(module: fx.GraphModule, node: fx.Node, name: str) -> None:
    """What is left of a folded BatchNorm, γ = 1 and β = 0: exact, and amplified like any other."""
    value = node.meta["val"]
    place = f"{name}.folded"
    module.add_submodule(place, NORMS[value.ndim](int(value.shape[1]), eps=0.0).requires_grad_(False))
    with module.graph.inserting_after(node):
        call = module.graph.call_module(place)
    node.replace_all_uses_with(call)
    call.args = (node,)


def _tensor(module: fx.GraphModule, argument: Any) -> Tensor | None:
    if not _is_attribute(argument):
        return None
    value: Any = module
    for part in argument.target.split("."):
        value = getattr(value, part)
    return value.detach() if isinstance(value, Tensor) else None
