"""What a network expects and returns, brought to what every detector works with: pixels and logits."""

from collections.abc import Callable

import torch
from torch import Tensor, nn

from models.bundle import BundleSpec, FileSpec, InputSpec
from models.errors import ArchitectureError, WeightsError

__all__ = ["LogProbabilities", "Normalise", "count_classes", "pixel_network", "preparation", "shape_seen"]

SMALLEST = torch.finfo(torch.float32).tiny
ROUNDING = 1e-3  # of a sum of probabilities, in half precision


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


class Scale(nn.Module):
    """x · factor, for networks that take pixels in [0, 255]."""

    def __init__(self, factor: float) -> None:
        super().__init__()
        self.factor = factor

    def forward(self, x: Tensor) -> Tensor:
        return x * self.factor


class ReverseColours(nn.Module):
    """RGB (B, 3, H, W) → BGR."""

    def forward(self, x: Tensor) -> Tensor:
        return x.flip(1)


class ChannelsLast(nn.Module):
    """(B, C, H, W) → (B, H, W, C)."""

    def forward(self, x: Tensor) -> Tensor:
        return x.permute(0, 2, 3, 1).contiguous()


class LogProbabilities(nn.Module):
    """Probabilities (B, K) → logits whose softmax they are."""

    def forward(self, p: Tensor) -> Tensor:
        return p.float().clamp_min(SMALLEST).log()


def preparation(spec: InputSpec) -> list[nn.Module]:
    """The steps from pixels (B, C, H, W) in [0, 1] to what the network takes."""
    steps: list[nn.Module] = []
    if spec.mean is not None and spec.std is not None:
        steps.append(Normalise(spec.mean, spec.std))
    if spec.range[1] != 1:
        steps.append(Scale(float(spec.range[1])))
    if spec.colours == "bgr":
        steps.append(ReverseColours())
    if spec.layout == "nhwc":
        steps.append(ChannelsLast())
    return steps


def shape_seen(spec: InputSpec) -> tuple[int, int, int]:
    """The shape of one image as the network sees it."""
    height, width = spec.size
    return (spec.channels, height, width) if spec.layout == "nchw" else (height, width, spec.channels)


def pixel_network(network: nn.Module, spec: BundleSpec) -> nn.Module:
    """`network` between what its bundle says of input and output: pixels (B, C, H, W) in [0, 1] → logits."""
    steps = [*preparation(spec.input), network]
    if spec.output == "probabilities":
        steps.append(LogProbabilities())
    return nn.Sequential(*steps) if len(steps) > 1 else network


@torch.inference_mode()
def count_classes(
    network: Callable[[Tensor], object], spec: BundleSpec, name: str, device: torch.device | str = "cpu"
) -> int:
    """The width of the logits of two images, one black and one white: a cheap proof that `network` (pixels
    → logits), called `name` where it fails, and `spec` agree.

    Raises `ArchitectureError`, and `WeightsError` for logits that are not finite.
    """
    shape = (spec.input.channels, *spec.input.size)
    images = torch.stack([torch.zeros(shape), torch.ones(shape)]).to(device)
    try:
        out = network(images)
    except Exception as error:
        raise ArchitectureError(f"{name} fails on images of shape {shape}: {error}") from error
    if not isinstance(out, Tensor) or out.ndim != 2 or len(out) != 2 or out.shape[1] < 2:
        raise ArchitectureError(f"{name} does not return logits of shape (B, classes ≥ 2)")
    if not out.isfinite().all():
        source = spec.weights if isinstance(spec, FileSpec) else name
        raise WeightsError(f"{source}: the logits of a blank image are not finite")
    _check_output(out.float(), spec, name)
    classes = int(out.shape[1])
    if spec.labels is not None and len(spec.labels) != classes:
        raise ArchitectureError(f"labels: {len(spec.labels)} names for the network's {classes} classes")
    return classes


def _check_output(logits: Tensor, spec: BundleSpec, name: str) -> None:
    """Scores would be wrong without any sign of it if probabilities were taken for logits, or logits for
    probabilities."""
    returned = logits.exp() if spec.output == "probabilities" else logits
    sums_to_one = bool(((returned.sum(1) - 1).abs() < ROUNDING).all())
    if spec.output == "probabilities" and not sums_to_one:
        raise ArchitectureError(f"output: {name} does not return probabilities: say `output: logits`")
    if spec.output == "logits" and sums_to_one and bool((returned >= 0).all()):
        raise ArchitectureError(f"output: {name} returns probabilities: say `output: probabilities`")
