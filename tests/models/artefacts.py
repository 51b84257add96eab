"""A small network with BatchNorms and shortcuts, and what exporters make of it."""

import copy
from pathlib import Path
from typing import Any

import torch
import yaml
from torch import Tensor, nn
from torch.export import Dim, ExportedProgram, export
from torch.nn.utils.fusion import fuse_conv_bn_eval

from models.zoo import BasicBlock, SmallResNet, conv3x3, pooled_linear

SIDE, CLASSES = 8, 5
SPEC: dict[str, Any] = {
    "name": "small",
    "input": {"size": [SIDE, SIDE], "channels": 3, "mean": [0.5, 0.4, 0.3], "std": [0.25, 0.2, 0.3]},
}


def small_network(seed: int = 0) -> nn.Module:
    """Normalised images (B, 3, 8, 8) → logits (B, 5); six BatchNorms, one of them on a shortcut.

    Their statistics are those of noise, and γ and β are random: no BatchNorm is an identity.
    """
    torch.manual_seed(seed)
    stem = nn.Sequential(conv3x3(3, 6), nn.BatchNorm2d(6), nn.ReLU())
    network = SmallResNet(BasicBlock, stem, [6, 8], 1, nn.Sequential(*pooled_linear(8, CLASSES)))
    for module in network.modules():
        if isinstance(module, nn.BatchNorm2d):
            module.momentum = 1.0
            nn.init.uniform_(module.weight, 0.5, 1.5)
            nn.init.uniform_(module.bias, -0.5, 0.5)
    with torch.no_grad():
        network.train()(torch.randn(64, 3, SIDE, SIDE))
    return network.eval().requires_grad_(False)


def folded_network(network: nn.Module) -> nn.Module:
    """A copy of `network` with every BatchNorm folded into the convolution before it."""
    copied: Any = copy.deepcopy(network)
    parts = [(copied.stem, "0", "1")]
    for block in copied.blocks:
        parts += [(block, "conv1", "bn1"), (block, "conv2", "bn2")]
        parts += [(block.shortcut, "0", "1")] * (len(block.shortcut) > 0)
    for owner, convolution, norm in parts:
        fused = fuse_conv_bn_eval(getattr(owner, convolution), getattr(owner, norm))
        setattr(owner, convolution, fused)
        setattr(owner, norm, nn.Identity())
    result: nn.Module = copied.requires_grad_(False)
    return result


def exported_program(network: nn.Module, *, batch: Any = "any", channels: int = 3) -> ExportedProgram:
    """`network` exported for any batch, for a `Dim`, or for a fixed number of images."""
    images = torch.rand(batch if isinstance(batch, int) else 5, channels, SIDE, SIDE)
    shapes = None if isinstance(batch, int) else ({0: Dim("batch") if batch == "any" else batch},)
    return export(network, (images,), dynamic_shapes=shapes)


def write_bundle(directory: Path, backend: str, weights: str, **changes: Any) -> Path:
    """`directory/model.yaml` for a file that lies there."""
    spec = {**SPEC, "backend": backend, "weights": weights, **changes}
    (directory / "model.yaml").write_text(yaml.safe_dump(spec), encoding="utf-8")
    return directory


def pictures(count: int, seed: int = 1) -> Tensor:
    """(count, 3, 8, 8) in [0, 1]."""
    return torch.rand(count, 3, SIDE, SIDE, generator=torch.Generator().manual_seed(seed))
