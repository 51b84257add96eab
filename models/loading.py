"""From a bundle directory to a running classifier, whatever its backend."""

from collections.abc import Callable
from pathlib import Path

import torch

from models.base import Classifier
from models.bundle import SPECS, BundleSpec, ExportedSpec, OnnxSpec, TorchScriptSpec, TorchSpec, read_spec
from models.errors import BundleError
from models.exported.classifier import load_exported
from models.remote import Connection, load_remote
from models.remote.spec import RemoteSpec
from models.torch_module import TorchClassifier, load_torch
from models.torchscript import load_torchscript

__all__ = ["load_bundle", "load_network", "open_spec"]


SPECS["remote"] = RemoteSpec


def load_bundle(
    directory: Path,
    device: torch.device | str = "cpu",
    connection: Connection | None = None,
    *,
    trusted: bool = False,
) -> Classifier:
    """Load the bundle in `directory`; what of it runs here runs on `device`, and what runs elsewhere is
    reached by `connection`. `trusted`: programs of the bundle's author may run.

    Raises a `BundleError` that names the file or field at fault.
    """
    return open_spec(read_spec(directory), directory, device, connection, trusted=trusted)


def open_spec(
    spec: BundleSpec,
    directory: Path,
    device: torch.device | str = "cpu",
    connection: Connection | None = None,
    *,
    trusted: bool = False,
) -> Classifier:
    """The classifier of `spec`, whose files lie in `directory`. Raises `BundleError`."""
    if isinstance(spec, TorchSpec):
        return load_torch(spec, directory, device)
    if isinstance(spec, ExportedSpec):
        return load_exported(spec, directory, device)
    if isinstance(spec, TorchScriptSpec):
        return load_torchscript(spec, directory, device, trusted=trusted)
    if isinstance(spec, RemoteSpec):
        return load_remote(spec, connection or Connection())
    if isinstance(spec, OnnxSpec):
        return _onnx()(spec, directory, device)
    raise BundleError(f"backend: {spec.backend} is not known here")


def _onnx() -> Callable[[OnnxSpec, Path, torch.device | str], Classifier]:
    try:
        from models.onnx.classifier import load_onnx
    except ImportError as error:
        raise BundleError(
            f"backend: onnx needs the packages onnx and onnxruntime (pip install -e '.[onnx]'): {error}"
        ) from error
    return load_onnx


def load_network(directory: Path, device: torch.device | str = "cpu") -> TorchClassifier:
    """As `load_bundle`, for what has to change or to copy the network. Raises `BundleError`."""
    classifier = load_bundle(directory, device)
    if not isinstance(classifier, TorchClassifier):
        raise BundleError(
            f"{directory} is a bundle of the backend {classifier.info.backend}, and this needs the network "
            "itself: make a bundle of the backend torch or exported"
        )
    return classifier
