"""Requests of the Open Inference Protocol, written by hand: no code of the gateway's takes part."""

import json
from typing import Any

import numpy as np

URL = "/v2/models/tiny/infer"


def json_request(values: Any, datatype: str, shape: list[int] | None = None, **rest: Any) -> dict[str, Any]:
    """A request with one input, in JSON."""
    shape = list(np.shape(values)) if shape is None else shape
    data = values.tolist() if isinstance(values, np.ndarray) else values
    return {"inputs": [{"name": "x", "shape": shape, "datatype": datatype, "data": data}], **rest}


def binary_request(part: bytes, datatype: str, shape: list[int], **rest: Any) -> dict[str, Any]:
    """The same as bytes: what to hand to httpx's `post`."""
    size = {"binary_data_size": len(part)}
    entry = {"name": "x", "shape": shape, "datatype": datatype, "parameters": size}
    head = json.dumps({"inputs": [entry], **rest}).encode()
    return {"content": head + part, "headers": {"Inference-Header-Content-Length": str(len(head))}}
