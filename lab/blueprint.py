"""The network that a training run starts from, and the bundle that it will become."""

import copy
import inspect
from pathlib import Path
from typing import Any

import torch
from pydantic import ValidationError
from torch import Tensor, nn

from lab.data import ImageSet, LabError
from lab.settings import TrainSettings
from models.architecture import build_network
from models.bundle import InputSpec, TorchSpec, read_spec, weights_path
from models.errors import ModelError
from models.weights import read_weights
from models.zoo import ZOO

__all__ = ["bundle_spec", "channel_statistics", "first_network", "new_network"]

WEIGHTS_FILE = "weights.safetensors"


def channel_statistics(images: Tensor) -> tuple[tuple[float, ...], tuple[float, ...]]:
    """Mean and standard deviation per channel of (N, C, H, W) uint8 images, in [0, 1] units.

    Rounded to 4 digits, as the bundle states them; a constant channel gets a deviation above 0.
    """
    per_channel = images.transpose(0, 1).flatten(1).float() / 255
    mean, std = per_channel.mean(1), per_channel.std(1).clamp(min=1e-4)
    return tuple(round(v, 4) for v in mean.tolist()), tuple(round(v, 4) for v in std.tolist())


def bundle_spec(settings: TrainSettings, data: ImageSet) -> TorchSpec:
    """The model.yaml of a classifier of `data`, normalised by its channel statistics.

    Raises `LabError` where the settings or the images make no valid bundle.
    """
    mean, std = channel_statistics(data.images)
    channels, height, width = data.images.shape[1:]
    args: dict[str, Any] = {"num_classes": len(data.classes)}
    source, _, name = settings.architecture.partition(":")
    if source == "zoo" and name in ZOO:
        offered = args | {"channels": channels, "size": height}
        args = {key: offered[key] for key in inspect.signature(ZOO[name]).parameters}
    try:
        # Validated from plain data: the channel count is known only now.
        statistics = {"size": (height, width), "channels": channels, "mean": mean, "std": std}
        return TorchSpec(
            name=settings.name,
            architecture=settings.architecture,
            architecture_args=args,
            weights=WEIGHTS_FILE,
            labels=data.classes,
            input=InputSpec.model_validate(statistics),
        )
    except ValidationError as error:
        raise LabError("; ".join(f"{e['loc'][-1]}: {e['msg']}" for e in error.errors())) from error


def first_network(spec: TorchSpec, settings: TrainSettings) -> nn.Module:
    """What a run by `settings` starts from, for normalised images: the network of the bundle `start_from`, as
    whoever adds a backdoor to a published classifier does, or one with random weights.

    Raises `LabError` where that bundle is of another network or other classes, or cannot be read.
    """
    network = new_network(spec, settings.seed)
    if settings.start_from is None:
        return network
    folder = Path(settings.start_from)
    try:
        given = read_spec(folder)
        if not isinstance(given, TorchSpec) or _identity(given) != _identity(spec):
            raise LabError(f"start_from: {folder} is not of {spec.architecture} for these images and classes")
        network.load_state_dict(read_weights(weights_path(given, folder)))
    except (ModelError, RuntimeError) as error:  # torch's, for weights that do not fit
        raise LabError(f"start_from: {error}") from error
    return network


def _identity(spec: TorchSpec) -> tuple[Any, ...]:
    """What two bundles share where one's weights are of use to the other."""
    return spec.architecture, spec.architecture_args, spec.labels, spec.input


def new_network(spec: TorchSpec, seed: int) -> nn.Module:
    """The network of `spec` with random weights from `seed`, for normalised images.

    Raises `LabError` where it cannot be built, or gives no logits for such images while it trains.
    """
    torch.manual_seed(seed)
    try:
        network = build_network(spec.architecture, spec.architecture_args)
    except ModelError as error:
        raise LabError(str(error)) from error
    blank = torch.zeros(2, spec.input.channels, *spec.input.size)
    try:
        out = copy.deepcopy(network).train()(blank)  # a copy: BatchNorm would learn from the blanks
    except Exception as error:
        raise LabError(f"{spec.architecture} fails on images {tuple(blank.shape[1:])}: {error}") from error
    classes = spec.architecture_args["num_classes"]
    if not isinstance(out, Tensor) or out.shape != (2, classes):
        raise LabError(f"{spec.architecture} does not return logits (B, {classes}) while it trains")
    return network
