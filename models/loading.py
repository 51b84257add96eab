"""From a bundle directory to a running classifier, whatever its backend."""

from pathlib import Path

import torch

from models.base import Classifier
from models.bundle import BundleSpec, ExportedSpec, TorchSpec, read_spec
from models.errors import BundleError
from models.exported.classifier import load_exported
from models.torch_module import TorchClassifier, load_torch

__all__ = ["load_bundle", "load_network", "open_spec"]


def load_bundle(directory: Path, device: torch.device | str = "cpu") -> Classifier:
    """Load the bundle in `directory`; what of it runs here runs on `device`.

    Raises a `BundleError` that names the file or field at fault.
    """
    return open_spec(read_spec(directory), directory, device)


def open_spec(spec: BundleSpec, directory: Path, device: torch.device | str = "cpu") -> Classifier:
    """The classifier of `spec`, whose files lie in `directory`. Raises `BundleError`."""
    if isinstance(spec, TorchSpec):
        return load_torch(spec, directory, device)
    if isinstance(spec, ExportedSpec):
        return load_exported(spec, directory, device)
    raise BundleError(f"backend: {spec.backend} is not known here")


def load_network(directory: Path, device: torch.device | str = "cpu") -> TorchClassifier:
    """As `load_bundle`, for what has to change or to copy the network. Raises `BundleError`."""
    classifier = load_bundle(directory, device)
    if not isinstance(classifier, TorchClassifier):
        raise BundleError(
            f"{directory} is a bundle of the backend {classifier.info.backend}, and this needs the network "
            "itself: make a bundle of the backend torch or exported"
        )
    return classifier
