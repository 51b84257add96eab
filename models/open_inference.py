"""Tensors of the Open Inference Protocol (v2), as JSON and as its binary-tensor extension carries them.

A message is a JSON object. Where tensors travel as bytes, they follow the JSON in the order in which it
names them; each says its `binary_data_size`, and a header says where the JSON ends. Numbers are
little-endian and row-major; an element of BYTES is its length in 4 bytes, then itself.

https://github.com/kserve/open-inference-protocol, and Triton's `extension_binary_data`. No HTTP here: the
gateway reads requests with it and the remote classifier reads answers.
"""

import base64
import json
import math
import struct
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import numpy.typing as npt

__all__ = ["BYTES", "DTYPES", "HEADER_LENGTH", "NamedTensor", "TensorError", "read", "read_tensors", "write"]

HEADER_LENGTH = "Inference-Header-Content-Length"
BYTES = "BYTES"
DTYPES: dict[str, np.dtype[Any]] = {
    "BOOL": np.dtype(np.bool_),
    **{f"UINT{bits}": np.dtype(f"<u{bits // 8}") for bits in (8, 16, 32, 64)},
    **{f"INT{bits}": np.dtype(f"<i{bits // 8}") for bits in (8, 16, 32, 64)},
    **{f"FP{bits}": np.dtype(f"<f{bits // 8}") for bits in (16, 32, 64)},
}
MOST_DIMENSIONS = 8
Values = npt.NDArray[Any]


class TensorError(ValueError):
    """Raised for a message that breaks the protocol; the text says where and may be shown to its sender."""


@dataclass(frozen=True)
class NamedTensor:
    """`values` has the tensor's shape; for BYTES its elements are Python `bytes`."""

    name: str
    datatype: str
    values: Values
    parameters: Mapping[str, Any] = field(default_factory=dict)


# --- reading ------------------------------------------------------------------------------------------


def read(body: bytes, header_length: str | None) -> tuple[dict[str, Any], bytes]:
    """The JSON object of a message, and the bytes behind it. Raises `TensorError`."""
    end = len(body) if header_length is None else _header_end(header_length, len(body))
    try:
        message = json.loads(body[:end])
    except (ValueError, RecursionError) as error:
        where = f"the first {end} bytes are" if header_length is not None else "the body is"
        raise TensorError(f"{where} not JSON: {str(error)[:200]}") from None
    if not isinstance(message, dict):
        raise TensorError("the JSON is not an object")
    return message, body[end:]


def _header_end(text: str, size: int) -> int:
    end = int(text) if text.isascii() and text.isdigit() and len(text) < 16 else -1
    if not 0 < end <= size:
        raise TensorError(f"{HEADER_LENGTH} is {text[:20]!r}, and the body has {size} bytes")
    return end


def read_tensors(entries: Any, binary: bytes, what: str = "inputs") -> list[NamedTensor]:
    """The tensors that the list `entries` of a message describes; `what` names the list.

    Every byte of `binary` has to belong to one of them. Raises `TensorError`.
    """
    if not isinstance(entries, list):
        raise TensorError(f"`{what}` is not a list of tensors")
    tensors, start = [], 0
    for number, entry in enumerate(entries):
        tensor, used = _read_tensor(entry, binary[start:], f"{what}[{number}]")
        tensors.append(tensor)
        start += used
    if start != len(binary):
        raise TensorError(
            f"{len(binary)} bytes follow the JSON; the `binary_data_size` of its tensors adds up to {start}"
        )
    return tensors


def _read_tensor(entry: Any, binary: bytes, at: str) -> tuple[NamedTensor, int]:
    """One tensor, and how many bytes of `binary` it took."""
    if not isinstance(entry, dict):
        raise TensorError(f"{at} is not an object")
    name, datatype = entry.get("name"), entry.get("datatype")
    if not isinstance(name, str):
        raise TensorError(f"{at} has no `name`")
    if datatype not in DTYPES and datatype != BYTES:
        raise TensorError(
            f"{at}: {str(datatype)[:40]!r} is no datatype; there are {', '.join(DTYPES)}, BYTES"
        )
    shape = _shape(entry.get("shape"), at)
    parameters = entry.get("parameters") or {}
    if not isinstance(parameters, dict):
        raise TensorError(f"{at}: `parameters` is not an object")
    size = parameters.get("binary_data_size")
    if size is None:
        return NamedTensor(name, datatype, _from_json(entry, datatype, shape, at), parameters), 0
    if "data" in entry:
        raise TensorError(f"{at} has both `data` and `binary_data_size`")
    if not _is_count(size) or size > len(binary):
        raise TensorError(f"{at}: `binary_data_size` is {str(size)[:40]}, and {len(binary)} bytes are left")
    values = _from_bytes(binary[:size], datatype, shape, at)
    return NamedTensor(name, datatype, values, parameters), size


def _is_count(value: Any) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and value >= 0


def _shape(shape: Any, at: str) -> list[int]:
    if not isinstance(shape, list) or not all(map(_is_count, shape)) or len(shape) > MOST_DIMENSIONS:
        raise TensorError(
            f"{at}: `shape` is not a list of at most {MOST_DIMENSIONS} whole numbers of 0 or more"
        )
    return shape


def _from_json(entry: Mapping[str, Any], datatype: str, shape: Sequence[int], at: str) -> Values:
    """`data`, nested or flat. A string of BYTES is the base64 of its bytes."""
    if "data" not in entry:
        raise TensorError(f"{at} has neither `data` nor `binary_data_size`")
    data = entry["data"]
    if not isinstance(data, list):
        raise TensorError(f"{at}: `data` is not a list")
    values = _decode_strings(data, at) if datatype == BYTES else _numbers(data, datatype, at)
    return _shaped(values, shape, at)


def _numbers(data: list[Any], datatype: str, at: str) -> Values:
    dtype = DTYPES[datatype]
    try:
        found = np.asarray(data)
    except (ValueError, OverflowError):
        raise TensorError(f"{at}: `data` is nested unevenly") from None
    taken = {"f": "fiu", "i": "iu", "u": "iu", "b": "b"}[dtype.kind]
    if found.size and found.dtype.kind not in taken:
        raise TensorError(f"{at}: `data` holds something that is no {datatype}")
    if dtype.kind in "iu" and found.size:
        bounds = np.iinfo(dtype)
        if int(found.min()) < bounds.min or int(found.max()) > bounds.max:
            raise TensorError(f"{at}: `data` holds a number outside {bounds.min} to {bounds.max}")
    with np.errstate(over="ignore"):  # what is too large becomes infinite, and is refused where it matters
        return found.astype(dtype)


def _decode_strings(data: list[Any], at: str) -> Values:
    flat: list[Any] = []
    waiting: list[Any] = [data]
    while waiting:
        top = waiting.pop()
        if isinstance(top, list):
            waiting.extend(reversed(top))
        else:
            flat.append(top)
    try:
        return _objects([base64.b64decode(text, validate=True) for text in flat])
    except (ValueError, TypeError):
        raise TensorError(
            f"{at}: an element of BYTES in JSON has to be a string in base64; else send it as binary data"
        ) from None


def _from_bytes(binary: bytes, datatype: str, shape: Sequence[int], at: str) -> Values:
    if datatype == BYTES:
        return _shaped(_objects(_elements(binary, at)), shape, at)
    wanted = math.prod(shape) * DTYPES[datatype].itemsize
    if len(binary) != wanted:
        raise TensorError(f"{at}: {datatype} of shape {shape} has {wanted} bytes, not {len(binary)}")
    return np.frombuffer(binary, DTYPES[datatype]).reshape(shape)


def _elements(binary: bytes, at: str) -> list[bytes]:
    elements, start = [], 0
    while start < len(binary):
        if start + 4 > len(binary):
            raise TensorError(f"{at}: {len(binary) - start} stray bytes end the BYTES")
        (length,) = struct.unpack_from("<I", binary, start)
        start += 4
        if length > len(binary) - start:
            raise TensorError(f"{at}: an element says it has {length} bytes; {len(binary) - start} are left")
        elements.append(binary[start : start + length])
        start += length
    return elements


def _objects(elements: Sequence[bytes]) -> Values:
    values = np.empty(len(elements), dtype=object)
    values[:] = elements
    return values


def _shaped(values: Values, shape: Sequence[int], at: str) -> Values:
    if values.size != math.prod(shape):
        raise TensorError(
            f"{at}: shape {shape} has {math.prod(shape)} elements, and `data` has {values.size}"
        )
    return values.reshape(shape)


# --- writing ------------------------------------------------------------------------------------------


def write(
    message: Mapping[str, Any], tensors: Sequence[NamedTensor], what: str, binary: Collection[str] = ()
) -> tuple[bytes, int | None]:
    """`message` with `tensors` as its list `what`; those named in `binary` travel as bytes.

    Returns the body, and the length of its JSON where bytes follow it. In JSON, BYTES are text (UTF-8) and
    a number that is none (NaN) is null.
    """
    entries, parts = [], []
    for tensor in tensors:
        entry: dict[str, Any] = {
            "name": tensor.name,
            "datatype": tensor.datatype,
            "shape": list(tensor.values.shape),
        }
        parameters = dict(tensor.parameters)
        if tensor.name in binary:
            part = _to_bytes(tensor)
            parameters["binary_data_size"] = len(part)
            parts.append(part)
        else:
            entry["data"] = _to_json(tensor)
        entries.append({**entry, "parameters": parameters} if parameters else entry)
    head = json.dumps({**message, what: entries}, allow_nan=False, separators=(",", ":")).encode()
    return b"".join([head, *parts]), len(head) if parts else None


def _to_json(tensor: NamedTensor) -> list[Any]:
    flat: list[Any] = tensor.values.ravel().tolist()
    if tensor.datatype == BYTES:
        return [element.decode() for element in flat]
    if DTYPES[tensor.datatype].kind == "f":
        return [value if math.isfinite(value) else None for value in flat]
    return flat


def _to_bytes(tensor: NamedTensor) -> bytes:
    if tensor.datatype == BYTES:
        return b"".join(struct.pack("<I", len(element)) + element for element in tensor.values.ravel())
    return np.ascontiguousarray(tensor.values, DTYPES[tensor.datatype]).tobytes()
