"""The body of an inference request → its images, and what is wanted of them."""

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from app.images import Pixels
from app.v2.errors import BadRequest
from app.v2.pixels import ImageTensors
from models.open_inference import BYTES, NamedTensor, TensorError, read, read_tensors

__all__ = ["InferRequest", "read_request"]


@dataclass(frozen=True)
class InferRequest:
    """`images` are pixels (C, H, W) in [0, 1] or still encoded; `outputs` are wanted in that order, those
    in `binary` as bytes. `partial`: rows that were rejected do not fail the others."""

    id: str | None
    images: Sequence[bytes | Pixels]
    outputs: tuple[str, ...]
    binary: frozenset[str]
    partial: bool


def read_request(
    body: bytes,
    header_length: str | None,
    takes: ImageTensors,
    offers: Collection[str],
    max_images: int,
) -> InferRequest:
    """Read `body`, whose JSON ends after `header_length` bytes where that is given.

    Slow for large bodies: not for the event loop. Raises `BadRequest`.
    """
    try:
        message, binary = read(body, header_length)
        tensors = read_tensors(message.get("inputs"), binary)
    except TensorError as error:
        raise BadRequest(str(error)) from error
    if len(tensors) != 1:
        raise BadRequest(f"send one input tensor, by any name, not {len(tensors)}")
    count = tensors[0].values.shape[0] if tensors[0].values.ndim else 0
    if not 0 < count <= max_images:
        raise BadRequest(f"{tensors[0].name!r} holds {count} images; 1 to {max_images} are taken at once")
    id, parameters = message.get("id"), _parameters(message, "the request")
    if id is not None and not isinstance(id, str):
        raise BadRequest("`id` is not a string")
    outputs, binary_outputs = _outputs(message.get("outputs"), parameters, offers)
    partial = _flag(parameters, "partial", "the request")
    if (
        partial
        and message.get("outputs")
        and "probabilities" in outputs
        and not {"label", "verdict"} & {*outputs}
    ):
        raise BadRequest(
            "with `partial` ask for `label` or `verdict` beside `probabilities`: they alone tell which rows "
            "were rejected"
        )
    return InferRequest(id, _images(tensors[0], takes), outputs, binary_outputs, partial)


def _images(tensor: NamedTensor, takes: ImageTensors) -> Sequence[bytes | Pixels]:
    if tensor.datatype != BYTES:
        return takes.images(tensor)
    if tensor.values.shape not in ((len(tensor.values),), (len(tensor.values), 1)):
        raise BadRequest(
            f"{tensor.name!r} has shape {list(tensor.values.shape)}: encoded images are [B] or [B, 1]"
        )
    encoded: list[bytes | Pixels] = [*tensor.values.ravel()]
    return encoded


def _outputs(
    entries: Any, parameters: Mapping[str, Any], offers: Collection[str]
) -> tuple[tuple[str, ...], frozenset[str]]:
    """Which outputs are wanted, all where none is named, and which of them as bytes."""
    by_default = _flag(parameters, "binary_data_output", "the request")
    if not entries and entries in (None, []):
        return tuple(offers), frozenset(offers if by_default else ())
    if not isinstance(entries, list) or not all(isinstance(entry, dict) for entry in entries):
        raise BadRequest("`outputs` is not a list of objects")
    binary: dict[str, bool] = {}
    for entry in entries:
        name = entry.get("name")
        if name not in offers:
            raise BadRequest(f"there is no output {str(name)[:64]!r}; there are {', '.join(offers)}")
        if name in binary:
            raise BadRequest(f"the output {name!r} is asked for twice")
        own = _parameters(entry, f"output {name!r}")
        if own.get("classification") or "shared_memory_region" in own:
            raise BadRequest(f"output {name!r}: classification and shared memory are not offered")
        binary[name] = _flag(own, "binary_data", f"output {name!r}", by_default)
    return tuple(binary), frozenset(name for name, wanted in binary.items() if wanted)


def _parameters(entry: Mapping[str, Any], what: str) -> Mapping[str, Any]:
    parameters = entry.get("parameters") or {}
    if not isinstance(parameters, dict):
        raise BadRequest(f"{what}: `parameters` is not an object")
    return parameters


def _flag(parameters: Mapping[str, Any], name: str, what: str, default: bool = False) -> bool:
    value = parameters.get(name, default)
    if not isinstance(value, bool):
        raise BadRequest(f"{what}: the parameter `{name}` is true or false")
    return value
