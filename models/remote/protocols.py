"""How a batch is put into a request, and what the answer says of it: one class per protocol."""

import base64
import io
import json
from functools import partial
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt
import torch
from PIL import Image
from torch import Tensor, nn

from models.contract import ChannelsLast, ReverseColours, preparation
from models.open_inference import BYTES, HEADER_LENGTH, NamedTensor, TensorError, read, read_tensors, write
from models.remote.answers import logits_of_labels, logits_of_scores, rows_of, wrong
from models.remote.spec import IMAGE, IMAGES, RemoteSpec
from models.remote.upstream import Answer, Ask

__all__ = ["JsonProtocol", "OpenInference", "RemoteProtocol", "protocol_of"]

JSON, OCTETS = "application/json", "application/octet-stream"


class RemoteProtocol(Protocol):
    """One way to ask about a batch."""

    def ask(self, images: Tensor) -> Ask:
        """The request about `images` (B, C, H, W), float32 in [0, 1]."""
        ...

    def logits(self, answer: Answer, rows: int) -> Tensor:
        """(B, K) float32 of the answer to a request about `rows` images. Raises `BadUpstreamAnswer`."""
        ...


def protocol_of(spec: RemoteSpec) -> RemoteProtocol:
    return OpenInference(spec) if spec.protocol == "v2" else JsonProtocol(spec)


def prepared(images: Tensor, spec: RemoteSpec) -> npt.NDArray[Any]:
    """What the endpoint wants to see: float32 as the bundle's `input` says, or bytes 0 to 255."""
    if spec.datatype != "UINT8":
        steps = preparation(spec.input)
        return nn.Sequential(*steps)(images).numpy()  # type: ignore[no-any-return]
    steps = [ReverseColours()] if spec.input.colours == "bgr" else []
    steps += [ChannelsLast()] if spec.input.layout == "nhwc" else []
    return nn.Sequential(*steps)(as_bytes(images)).numpy()  # type: ignore[no-any-return]


def as_bytes(images: Tensor) -> Tensor:
    """Pixels in [0, 1] → the nearest of 0 to 255, uint8."""
    return images.mul(255).round().to(torch.uint8)


def as_png(image: Tensor) -> bytes:
    """(C, H, W) in [0, 1] → a PNG, which rounds to bytes and loses nothing else."""
    pixels = as_bytes(image).permute(1, 2, 0).numpy()
    buffer = io.BytesIO()
    Image.fromarray(pixels[..., 0] if pixels.shape[2] == 1 else pixels).save(buffer, "PNG")
    return buffer.getvalue()


class OpenInference:
    """The Open Inference Protocol v2, as KServe, Triton and MLServer speak it."""

    def __init__(self, spec: RemoteSpec) -> None:
        self.spec = spec
        version = f"/versions/{spec.model_version}" if spec.model_version else ""
        self.path = f"/v2/models/{spec.model_name}{version}/infer"

    def ask(self, images: Tensor) -> Ask:
        spec = self.spec
        binary = spec.tensors == "binary"
        message: dict[str, Any] = {}
        if spec.output_name is not None:
            wanted: dict[str, Any] = {"name": spec.output_name}
            message["outputs"] = [{**wanted, "parameters": {"binary_data": True}} if binary else wanted]
        elif binary:
            message["parameters"] = {"binary_data_output": True}
        tensor = NamedTensor(spec.input_name, spec.datatype, self._values(images, binary))
        body, end = write(message, [tensor], "inputs", {spec.input_name} if binary else ())
        headers = {"Content-Type": JSON if end is None else OCTETS}
        return Ask(
            self.path, body, headers | ({HEADER_LENGTH: str(end)} if end is not None else {}), len(images)
        )

    def _values(self, images: Tensor, binary: bool) -> npt.NDArray[Any]:
        if self.spec.datatype != BYTES:
            return prepared(images, self.spec)
        values = np.empty(len(images), dtype=object)
        values[:] = [png if binary else base64.b64encode(png) for png in map(as_png, images)]
        return values

    def logits(self, answer: Answer, rows: int) -> Tensor:
        try:
            message, binary = read(answer.body, answer.headers.get(HEADER_LENGTH))
            tensor = self._chosen(read_tensors(message.get("outputs"), binary, "outputs"))
        except TensorError as error:
            raise wrong(str(error)) from error
        if self.spec.access == "labels":
            return logits_of_labels(tensor.values, rows, self.spec)
        return logits_of_scores(tensor.values, rows, self.spec)

    def _chosen(self, tensors: list[NamedTensor]) -> NamedTensor:
        name = self.spec.output_name
        found = [tensor for tensor in tensors if name is None or tensor.name == name]
        if len(found) != 1:
            wanted = "one output; name it in the bundle" if name is None else f"the output {name!r} once"
            raise wrong(f"{len(tensors)} outputs, and not {wanted}")
        return found[0]


class JsonProtocol:
    """An endpoint's own JSON, as the bundle's `json_calls` describe it."""

    def __init__(self, spec: RemoteSpec) -> None:
        self.spec, self.calls = spec, spec.json_calls

    def ask(self, images: Tensor) -> Ask:
        if self.calls.image == "png":
            contents: list[Any] = [base64.b64encode(as_png(image)).decode() for image in images]
        else:
            contents = prepared(images, self.spec).tolist()
        items = [filled(self.calls.item, IMAGE, content) for content in contents]
        body = json.dumps(filled(self.calls.request, IMAGES, items)).encode()
        return Ask(self.calls.path, body, {"Content-Type": JSON}, len(images))

    def logits(self, answer: Answer, rows: int) -> Tensor:
        try:
            content = json.loads(answer.body)
        except (ValueError, RecursionError):
            raise wrong("no JSON") from None
        entries = at(content, self.calls.answer)
        if not isinstance(entries, list) or len(entries) != rows:
            count = len(entries) if isinstance(entries, list) else "no"
            raise wrong(f"{count} entries for {rows} images")
        found = list(map(partial(at, way=self.calls.entry), entries))
        if self.spec.access == "labels":
            return logits_of_labels(found, rows, self.spec)
        return logits_of_scores(rows_of(found, self.spec), rows, self.spec)


def filled(template: Any, mark: str, value: Any) -> Any:
    """`template` with `value` where the text `mark` stands."""
    if isinstance(template, dict):
        return {name: filled(part, mark, value) for name, part in template.items()}
    if isinstance(template, list):
        return [filled(part, mark, value) for part in template]
    return value if template == mark else template


def at(content: Any, way: str) -> Any:
    """What lies at `way`, such as `result.0.scores`, in a JSON value."""
    for step in way.split(".") if way else ():
        if isinstance(content, dict) and step in content:
            content = content[step]
        elif isinstance(content, list) and step.isdigit() and int(step) < len(content):
            content = content[int(step)]
        else:
            raise wrong(f"nothing at {way!r}")
    return content
