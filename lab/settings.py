"""The settings of a training run."""

from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field

__all__ = ["TrainSettings"]


class TrainSettings(BaseModel):
    """Everything that decides the result of a training run, with the papers' usual values."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    name: str
    architecture: str = "zoo:resnet20"
    attack: str | None = "badnets"
    attack_settings: dict[str, Any] = Field(default_factory=dict)  # its paper's values where not named
    target: int = 0
    poison_rate: float = Field(default=0.1, ge=0, le=1)
    objective: Literal["none", "scaled", "psc1", "psc2", "profile"] = "none"  # of an adaptive attacker
    objective_weight: float = Field(default=0.2, gt=0, lt=1)
    epochs: int = Field(default=12, ge=1)
    batch_size: int = Field(default=128, ge=2)
    learning_rate: float = Field(default=0.1, gt=0)
    weight_decay: float = Field(default=5e-4, ge=0)
    crop_padding: int = Field(default=4, ge=0)
    flip: bool = True
    precision: Literal["bf16", "float32"] = "bf16"  # of the forward pass; bf16 by autocast
    compiled: bool = False  # forward and backward pass by torch.compile: faster, and needs a C++ compiler
    start_from: str | None = None  # a bundle of the same network and classes; random weights without one
    seed: int = 0
