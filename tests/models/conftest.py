"""A tiny bundle on disk, to be broken in one place by each test."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml
from safetensors.torch import save_file
from torch import nn

from models.architecture import build_network

MakeBundle = Callable[..., Path]


def tiny_network(num_classes: int = 3, channels: int = 3) -> nn.Module:
    """Logits are the channel means through one linear layer: everything can be worked out by hand."""
    return nn.Sequential(nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(channels, num_classes))


TINY = {
    "name": "tiny",
    "version": "1",
    "backend": "torch",
    "architecture": f"{__name__}:tiny_network",
    "architecture_args": {"num_classes": 3},
    "weights": "weights.safetensors",
    "labels": ["a", "b", "c"],
    "input": {"size": [4, 4], "channels": 3, "mean": [0.5, 0.25, 0.1], "std": [0.5, 0.2, 0.1]},
}


def tiny_weights() -> dict[str, torch.Tensor]:
    return {"2.weight": torch.arange(9.0).reshape(3, 3) / 10, "2.bias": torch.tensor([1.0, 0.0, -1.0])}


@pytest.fixture
def make_bundle(tmp_path: Path) -> MakeBundle:
    """`make_bundle(state, field=value)` writes a bundle; a field given as None is left out.

    `state` are the weights: by default the hand-made ones, or "fresh" for those of the architecture.
    """
    count = 0

    def make(state: dict[str, torch.Tensor] | str | None = None, **changes: Any) -> Path:
        nonlocal count
        count += 1
        directory = tmp_path / f"bundle{count}"
        directory.mkdir()
        spec = {key: value for key, value in {**TINY, **changes}.items() if value is not None}
        if state == "fresh":
            torch.manual_seed(0)
            state = build_network(spec["architecture"], spec.get("architecture_args", {})).state_dict()
        save_file(state if isinstance(state, dict) else tiny_weights(), directory / "weights.safetensors")
        (directory / "model.yaml").write_text(yaml.safe_dump(spec), encoding="utf-8")
        return directory

    return make
