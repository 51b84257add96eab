"""An ONNX file as one self-contained model, and what can be read off it before it runs."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt
import onnx
from onnx import ModelProto, NodeProto, TensorProto, external_data_helper

from models.batches import BatchBounds
from models.bundle import InputSpec, OnnxSpec, read_artefact
from models.contract import shape_seen
from models.errors import ArchitectureError, WeightsError

__all__ = ["Port", "opsets", "output_name", "read_model", "read_port"]

TYPES: dict[int, type[np.generic]] = {
    TensorProto.FLOAT: np.float32,
    TensorProto.FLOAT16: np.float16,
    TensorProto.DOUBLE: np.float64,
    TensorProto.UINT8: np.uint8,
}


@dataclass(frozen=True)
class Port:
    """Where the images go in: the input's name, its type, and how many images it takes at once."""

    name: str
    dtype: npt.DTypeLike
    bounds: BatchBounds


def read_model(spec: OnnxSpec, directory: Path) -> tuple[ModelProto, Mapping[str, bytes]]:
    """The model with all its tensors inside, and the contents of the files that it came from.

    ONNX Runtime is given this copy, and opens no file itself. Raises `BundleError`.
    """
    data = read_artefact(spec, directory)
    files = {spec.weights: data}
    try:
        model = onnx.load_model_from_string(data)
    except Exception as error:  # protobuf's own errors
        raise WeightsError(f"{spec.weights} is not a readable ONNX file: {error}") from error
    if not model.graph.node:
        raise WeightsError(f"{spec.weights} is not a readable ONNX file: it has no graph")
    for tensor in _external(model):
        where = external_data_helper.ExternalDataInfo(tensor)
        name = str(Path(spec.weights).parent / where.location)
        if name not in files:
            files[name] = read_artefact(spec.model_copy(update={"weights": name}), directory)
        start = where.offset or 0
        content = files[name][start : start + where.length if where.length else None]
        if where.length and len(content) < where.length:
            raise WeightsError(f"{name} is shorter than {spec.weights} says")
        tensor.raw_data = content
        tensor.data_location = TensorProto.DEFAULT
        del tensor.external_data[:]
    return model, files


def _external(model: ModelProto) -> Iterator[TensorProto]:
    tensors = [*model.graph.initializer, *_attributes(model.graph.node)]
    for tensor in tensors:
        if tensor.data_location == TensorProto.EXTERNAL:
            yield tensor


def _attributes(nodes: "Iterator[NodeProto]") -> Iterator[TensorProto]:
    for node in nodes:
        for attribute in node.attribute:
            if attribute.HasField("t"):
                yield attribute.t
            if attribute.HasField("g"):
                yield from attribute.g.initializer
                yield from _attributes(attribute.g.node)


def opsets(model: ModelProto) -> str:
    """The operator sets that the model needs, for people: "opset 20, com.microsoft 1"."""
    return ", ".join(f"{entry.domain or 'opset'} {entry.version}" for entry in model.opset_import)


def read_port(model: ModelProto, spec: InputSpec) -> Port:
    """The input for images as `spec` describes them. Raises `ArchitectureError`."""
    stored = {tensor.name for tensor in model.graph.initializer}
    inputs = [each for each in model.graph.input if each.name not in stored]
    if len(inputs) != 1:
        names = ", ".join(each.name for each in inputs) or "none"
        raise ArchitectureError(
            f"the graph has {len(inputs)} inputs ({names}); a classifier has one, for images: fix the others "
            "when exporting"
        )
    (image,) = inputs
    tensor = image.type.tensor_type
    if tensor.elem_type not in TYPES:
        name = TensorProto.DataType.Name(tensor.elem_type)
        raise ArchitectureError(f"the graph's input is of type {name}; float32, float16 and uint8 are taken")
    if tensor.elem_type == TensorProto.UINT8 and (spec.range[1] != 255 or spec.mean is not None):
        raise ArchitectureError("the graph's input is of type uint8: say `range: [0, 255]`, no mean and std")
    sizes = [size.dim_value if size.dim_value > 0 else None for size in tensor.shape.dim]
    if tensor.HasField("shape"):
        _check_shape(sizes, spec)
    fixed = sizes[0] if sizes else None
    return Port(image.name, TYPES[tensor.elem_type], (1, None) if fixed is None else (fixed, fixed))


def _check_shape(sizes: list[int | None], spec: InputSpec) -> None:
    expected = shape_seen(spec)
    if _fits(sizes[1:], expected):
        return
    other = "nhwc" if spec.layout == "nchw" else "nchw"
    turned = shape_seen(spec.model_copy(update={"layout": other}))
    advice = f": say `layout: {other}`" if _fits(sizes[1:], turned) else ""
    shown = ", ".join("?" if size is None else str(size) for size in sizes)
    raise ArchitectureError(
        f"the graph takes images of shape ({shown}), and `input` in model.yaml describes (B, "
        f"{', '.join(map(str, expected))}){advice}"
    )


def _fits(sizes: list[int | None], expected: tuple[int, ...]) -> bool:
    pairs = zip(sizes, expected, strict=False)
    return len(sizes) == len(expected) and all(size in (None, wanted) for size, wanted in pairs)


def output_name(model: ModelProto, spec: OnnxSpec) -> str:
    """The output with logits or probabilities. Raises `ArchitectureError`."""
    names = [each.name for each in model.graph.output]
    if spec.output_name is None and len(names) != 1:
        raise ArchitectureError(
            f"the graph has {len(names)} outputs ({', '.join(names)}): name the one of shape (B, classes) as "
            "`output_name`"
        )
    if spec.output_name is not None and spec.output_name not in names:
        raise ArchitectureError(
            f"output_name: the graph has no output {spec.output_name!r}; it has {', '.join(names)}"
        )
    return spec.output_name or names[0]
