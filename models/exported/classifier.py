"""From a bundle with a `.pt2` file to a classifier."""

from pathlib import Path

import torch
from torch import nn
from torch.export import ExportedProgram
from torch.export.passes import move_to_device_pass

from models.batches import Bounded
from models.bundle import ExportedSpec, read_artefact
from models.contract import count_classes, pixel_network, shape_seen
from models.errors import ArchitectureError
from models.exported.archive import open_program
from models.exported.program import batch_bounds, image_input, network_of
from models.layers import Layers
from models.torch_module import TorchClassifier, info_of
from models.weights import digest_of_files

__all__ = ["load_exported"]


def load_exported(spec: ExportedSpec, directory: Path, device: torch.device | str = "cpu") -> TorchClassifier:
    """Load the bundle of `spec` in `directory` onto `device`. Raises a `BundleError`."""
    device = torch.device(device)
    data = read_artefact(spec, directory)
    program = open_program(data, spec.weights)
    try:
        network, layers = _network(program, spec, device)
    except ArchitectureError as error:
        raise ArchitectureError(f"{spec.weights}: {error}") from error
    served = pixel_network(network, spec).to(device).eval()
    classes = count_classes(served, spec, spec.weights, device)
    info = info_of(spec, digest_of_files({"program": data}, spec.identity()), spec.weights, classes, layers)
    return TorchClassifier(served, info, device)


def _network(program: ExportedProgram, spec: ExportedSpec, device: torch.device) -> tuple[nn.Module, Layers]:
    found, expected = tuple(image_input(program).shape[1:]), shape_seen(spec.input)
    if found != expected:
        raise ArchitectureError(
            f"the program takes images of shape {found}, and `input` in model.yaml describes {expected}"
        )
    bounds = batch_bounds(program)
    if device.type != "cpu":
        program = move_to_device_pass(program, device)
    network, layers = network_of(program, spec.folded)
    return (network if bounds == (1, None) else Bounded(network, bounds)), layers
