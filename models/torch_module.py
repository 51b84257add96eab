"""The `torch` backend: an `nn.Module` built by name, with weights from the bundle."""

from pathlib import Path

import torch
from torch import Tensor, nn

from models.architecture import build_network
from models.base import ClassifierInfo
from models.bundle import BundleSpec, InputSpec, read_spec, weights_path
from models.errors import ArchitectureError, InputError, WeightsError
from models.weights import StateDict, digest_of, read_weights

__all__ = ["Normalise", "TorchClassifier", "load_bundle", "pixel_network"]


class Normalise(nn.Module):
    """(x − mean) / std per channel, so that the network that follows may be fed pixels in [0, 1]."""

    mean: Tensor
    std: Tensor

    def __init__(self, mean: tuple[float, ...], std: tuple[float, ...]) -> None:
        super().__init__()
        self.register_buffer("mean", torch.tensor(mean).view(-1, 1, 1))
        self.register_buffer("std", torch.tensor(std).view(-1, 1, 1))

    def forward(self, x: Tensor) -> Tensor:
        return (x - self.mean) / self.std


def pixel_network(network: nn.Module, spec: InputSpec) -> nn.Module:
    """`network` preceded by the bundle's normalisation: pixels (B, C, H, W) in [0, 1] → logits."""
    if spec.mean is None or spec.std is None:
        return network
    return nn.Sequential(Normalise(spec.mean, spec.std), network)


class TorchClassifier:
    """A network on one device, fed pixels; satisfies `models.base.Classifier`.

    Takes `network` over: it is moved to `device`, put into eval mode and frozen.
    """

    def __init__(self, network: nn.Module, info: ClassifierInfo, device: torch.device) -> None:
        self.info = info
        self.device = device
        self.network = network.to(device).eval().requires_grad_(False)

    @property
    def num_classes(self) -> int:
        return self.info.num_classes

    @torch.inference_mode()
    def logits(self, images: Tensor) -> Tensor:
        """Logits (B, num_classes), float32, of `images` (B, C, H, W), float32 in [0, 1], on `device`.

        Raises `InputError` for another shape or type.
        """
        expected = (self.info.channels, *self.info.size)
        if images.ndim != 4 or tuple(images.shape[1:]) != expected or images.dtype != torch.float32:
            raise InputError(
                f"{self.info.name} takes torch.float32 of shape (B, {', '.join(map(str, expected))}), "
                f"not {images.dtype} of shape {tuple(images.shape)}"
            )
        out: Tensor = self.network(images)
        return out.float()


def load_bundle(directory: Path, device: torch.device | str = "cpu") -> TorchClassifier:
    """Load the bundle in `directory` onto `device`, in float32 and eval mode.

    Raises a `BundleError` that names the file or field at fault.
    """
    spec = read_spec(directory)
    state = read_weights(weights_path(spec, directory))
    network = build_network(spec.architecture, spec.architecture_args)
    _fit_weights(network, state, spec.weights)
    served = pixel_network(network.float(), spec.input).eval()
    facts = spec.model_dump(mode="json", include={"architecture", "architecture_args", "input", "backend"})
    info = ClassifierInfo(
        name=spec.name,
        version=spec.version,
        digest=digest_of(state, facts),
        architecture=spec.architecture,
        backend=spec.backend,
        access="weights",
        num_classes=_count_classes(served, spec),
        labels=spec.labels,
        channels=spec.input.channels,
        size=spec.input.size,
        interpolation=spec.input.interpolation,
    )
    return TorchClassifier(served, info, torch.device(device))


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


@torch.inference_mode()
def _count_classes(served: nn.Module, spec: BundleSpec) -> int:
    """The width of the logits of two blank images: a cheap proof that network and bundle agree."""
    shape = (spec.input.channels, *spec.input.size)
    try:
        out = served(torch.zeros(2, *shape))
    except Exception as error:
        raise ArchitectureError(f"{spec.architecture} fails on images of shape {shape}: {error}") from error
    if not isinstance(out, Tensor) or out.ndim != 2 or len(out) != 2 or out.shape[1] < 2:
        raise ArchitectureError(f"{spec.architecture} does not return logits of shape (B, classes ≥ 2)")
    if not out.isfinite().all():
        raise WeightsError(f"{spec.weights}: the logits of a blank image are not finite")
    classes = int(out.shape[1])
    if spec.labels is not None and len(spec.labels) != classes:
        raise ArchitectureError(f"labels: {len(spec.labels)} names for the network's {classes} classes")
    return classes
