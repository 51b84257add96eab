"""The `torch` backend: an `nn.Module` built by name, with weights from the bundle."""

from pathlib import Path

import torch
from torch import Tensor, nn

from models.architecture import build_network
from models.base import AccessName, ClassifierInfo, check_images
from models.bundle import BundleSpec, TorchSpec, weights_path
from models.contract import count_classes, pixel_network
from models.errors import ArchitectureError
from models.layers import Layers
from models.weights import StateDict, digest_of, read_weights

__all__ = ["TorchClassifier", "info_of", "load_torch"]


class TorchClassifier:
    """A network on one device, fed pixels; satisfies `models.base.Classifier`.

    Takes `network` over: it is moved to `device`, put into eval mode and frozen. `runner` is what computes
    the logits, `network` itself unless something faster is put there that gives the same; `engine` names it.
    """

    def __init__(self, network: nn.Module, info: ClassifierInfo, device: torch.device) -> None:
        self.info = info
        self.device = device
        self.network = network.to(device).eval().requires_grad_(False)
        self.runner: nn.Module = self.network
        self.engine = "eager"

    @property
    def num_classes(self) -> int:
        return self.info.num_classes

    @torch.inference_mode()
    def logits(self, images: Tensor) -> Tensor:
        """Logits (B, num_classes), float32, of `images` (B, C, H, W), float32 in [0, 1], on `device`.

        Raises `InputError` for another shape or type.
        """
        check_images(images, self.info)
        out: Tensor = self.runner(images)
        return out.float()


def load_torch(spec: TorchSpec, directory: Path, device: torch.device | str = "cpu") -> TorchClassifier:
    """Load the bundle of `spec` in `directory` onto `device`, in float32 and eval mode.

    Raises a `BundleError` that names the file or field at fault.
    """
    state = read_weights(weights_path(spec, directory))
    network = build_network(spec.architecture, spec.architecture_args)
    _fit_weights(network, state, spec.weights)
    served = pixel_network(network.float(), spec).eval()
    classes = count_classes(served, spec, spec.architecture)
    info = info_of(spec, digest_of(state, spec.identity()), spec.architecture, classes)
    return TorchClassifier(served, info, torch.device(device))


def info_of(
    spec: BundleSpec,
    digest: str,
    architecture: str,
    classes: int,
    layers: Layers | None = None,
    access: AccessName = "weights",
) -> ClassifierInfo:
    """The facts of a classifier that runs here."""
    return ClassifierInfo(
        name=spec.name,
        version=spec.version,
        digest=digest,
        architecture=architecture,
        backend=spec.backend,
        access=access,
        num_classes=classes,
        labels=spec.labels,
        channels=spec.input.channels,
        size=spec.input.size,
        interpolation=spec.input.interpolation,
        layers=layers,
    )


def _fit_weights(network: nn.Module, state: StateDict, source: str) -> None:
    try:
        network.load_state_dict(state)
    except RuntimeError as error:
        reason = _misfit(network.state_dict(), state) or error
        raise ArchitectureError(f"the weights in {source} do not fit the architecture: {reason}") from error


def _misfit(wanted: StateDict, given: StateDict) -> str:
    """What sets two state dicts apart, in a line: torch's own text names every tensor of the network."""
    shared = wanted.keys() & given.keys()
    faults = {
        "missing": wanted.keys() - given.keys(),
        "not of this network": given.keys() - wanted.keys(),
        "of another shape": {name for name in shared if wanted[name].shape != given[name].shape},
    }
    return ", ".join(
        f"{len(names)} {fault} (such as {min(names)!r})" for fault, names in faults.items() if names
    )
