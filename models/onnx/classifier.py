"""A graph in ONNX Runtime as a classifier, plain or with factors on its layers."""

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime
import torch
from onnx import ModelProto
from torch import Tensor, nn

from models.base import ClassifierInfo, check_images
from models.batches import in_batches
from models.bundle import OnnxSpec
from models.contract import LogProbabilities, count_classes, preparation
from models.errors import ArchitectureError, BundleError
from models.onnx.amplify import FACTORS, Found, find_layers, with_factors
from models.onnx.graph import Port, opsets, output_name, read_model, read_port
from models.torch_module import info_of
from models.weights import digest_of_files

__all__ = ["OnnxClassifier", "load_onnx"]

LARGEST = 2**31 - 1  # bytes of a protobuf message
SILENT = 3  # errors only


class Graph:
    """One session: pixels in, logits out, any number of images. The images are prepared on the CPU."""

    def __init__(self, model: ModelProto, spec: OnnxSpec, port: Port, device: torch.device) -> None:
        """Raises `ArchitectureError` where ONNX Runtime cannot run `model`, `BundleError` for the device."""
        self.port = port
        self.output = output_name(model, spec)
        self.prepare = nn.Sequential(*preparation(spec.input))
        self.finish = LogProbabilities() if spec.output == "probabilities" else nn.Identity()
        self.session = open_session(model, device)

    def __call__(self, images: Tensor) -> Tensor:
        return in_batches(lambda rows: self._run(rows, {}), images, self.port.bounds)

    def amplified(self, images: Tensor, factors: Tensor) -> Tensor:
        """As a call, with `factors` (B, L) on the layers that the session was made with."""
        layers = factors.shape[1]
        both = torch.cat([images.flatten(1), factors], dim=1)  # so that they are split and padded alike

        def run(rows: Tensor) -> Tensor:
            pixels, given = rows[:, :-layers], rows[:, -layers:]
            extra = {FACTORS: np.ascontiguousarray(given.T.numpy())}
            return self._run(pixels.reshape(-1, *images.shape[1:]), extra)

        return in_batches(run, both, self.port.bounds)

    def _run(self, images: Tensor, extra: dict[str, Any]) -> Tensor:
        ready = self.prepare(images)
        if self.port.dtype is np.uint8:
            ready = ready.round()
        values = ready.contiguous().numpy().astype(self.port.dtype, copy=False)
        (out,) = self.session.run([self.output], {self.port.name: values, **extra})
        logits: Tensor = self.finish(torch.from_numpy(np.asarray(out)).float())
        return logits


def open_session(model: ModelProto, device: torch.device) -> Any:
    """A session for `model` on `device`. Raises `ArchitectureError` and `BundleError`."""
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = torch.get_num_threads()
    options.log_severity_level = SILENT
    if model.ByteSize() > LARGEST:
        raise ArchitectureError("the model has more than 2 GB, which this backend does not take")
    try:
        return onnxruntime.InferenceSession(model.SerializeToString(), options, providers_for(device))
    except Exception as error:  # ONNX Runtime raises a dozen kinds, for operators it lacks above all
        reason = str(error).strip().splitlines()[-1][:300]
        raise ArchitectureError(
            f"ONNX Runtime {onnxruntime.__version__} cannot run it ({opsets(model)}): {reason}; another "
            "`opset_version` at export, or a newer ONNX Runtime, may help"
        ) from error


def providers_for(device: torch.device) -> list[Any]:
    """ONNX Runtime's execution providers for `device`. Raises `BundleError` where it has none."""
    if device.type == "cpu":
        return ["CPUExecutionProvider"]
    if device.type == "cuda" and "CUDAExecutionProvider" in onnxruntime.get_available_providers():
        return [("CUDAExecutionProvider", {"device_id": device.index or 0}), "CPUExecutionProvider"]
    raise BundleError(
        f"this ONNX Runtime cannot use the device {device}: set TRIGGERWALL_DEVICE=cpu, or install "
        "onnxruntime-gpu in place of onnxruntime for CUDA"
    )


class OnnxClassifier:
    """A graph on one device, fed pixels; satisfies `models.base.Classifier`, and can be amplified."""

    network = None
    device = torch.device("cpu")  # of the images; the session copies them to where it runs

    def __init__(
        self,
        info: ClassifierInfo,
        graph: Graph,
        found: dict[str, Found],
        open_amplified: Callable[[Sequence[Found]], Graph],
    ) -> None:
        """`found`: where each layer is; `open_amplified` makes a graph with factors on some of them."""
        self.info = info
        self._graph, self._found, self._open_amplified = graph, found, open_amplified

    @property
    def num_classes(self) -> int:
        return self.info.num_classes

    def logits(self, images: Tensor) -> Tensor:
        """Logits (B, num_classes), float32, of `images` (B, C, H, W), float32 in [0, 1], on the CPU.

        Raises `InputError` for another shape or type.
        """
        check_images(images, self.info)
        return self._graph(images)

    @property
    def amplifiable(self) -> Sequence[str]:
        """The layers that `amplifier` takes, in execution order."""
        return self.info.layers.amplified if self.info.layers is not None else ()

    def amplifier(self, layers: Sequence[str]) -> Callable[[Tensor, Tensor], Tensor]:
        """(images (B, C, H, W), factors (B, len(layers))) → logits with what each of `layers` gives times
        its factor. A session of its own, with a second set of weights."""
        graph = self._open_amplified([self._found[name] for name in layers])

        def run(images: Tensor, factors: Tensor) -> Tensor:
            check_images(images, self.info)
            return graph.amplified(images, factors)

        return run


def load_onnx(spec: OnnxSpec, directory: Path, device: torch.device | str = "cpu") -> OnnxClassifier:
    """Load the bundle of `spec` in `directory` for `device`. Raises a `BundleError`."""
    device = torch.device(device)
    model, files = read_model(spec, directory)
    try:
        port = read_port(model, spec.input)
        graph = Graph(model, spec, port, device)
        layers, found = find_layers(model, spec.folded)
    except ArchitectureError as error:
        raise ArchitectureError(f"{spec.weights}: {error}") from error
    classes = count_classes(graph, spec, spec.weights)
    name = f"{spec.weights}, {opsets(model)}"
    info = info_of(spec, digest_of_files(files, spec.identity()), name, classes, layers)

    def open_amplified(chosen: Sequence[Found]) -> Graph:
        return Graph(with_factors(model, chosen, port.bounds[1]), spec, port, device)

    return OnnxClassifier(info, graph, found, open_amplified)
