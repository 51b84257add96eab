"""The model bundle: a directory with `model.yaml` and what it names."""

from pathlib import Path
from typing import Annotated, Any, Literal, Self

import yaml
from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from models.errors import BundleError

__all__ = ["BundleSpec", "InputSpec", "read_spec", "weights_path", "write_spec"]

SPEC_FILE = "model.yaml"
Side = Annotated[int, Field(ge=1, le=4096)]
# The bounds catch the commonest slip, statistics in units of 0–255.
Unit = Annotated[float, Field(ge=0, le=1)]
Spread = Annotated[float, Field(gt=0, le=1)]


class InputSpec(BaseModel):
    """What the network wants to see; `mean` and `std` are per channel in [0, 1] units."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    size: tuple[Side, Side]  # height, width
    channels: Literal[1, 3] = 3
    interpolation: Literal["nearest", "bilinear", "bicubic"] = "bilinear"
    mean: tuple[Unit, ...] | None = None
    std: tuple[Spread, ...] | None = None

    @model_validator(mode="after")
    def _mean_and_std_belong_together(self) -> Self:
        if (self.mean is None) != (self.std is None):
            raise ValueError("give both mean and std, or neither")
        for name, values in (("mean", self.mean), ("std", self.std)):
            if values is not None and len(values) != self.channels:
                raise ValueError(f"{name} has {len(values)} values for {self.channels} channels")
        return self


class BundleSpec(BaseModel):
    """The contents of `model.yaml`."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    name: Annotated[str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]{0,63}$")]
    version: Annotated[str, Field(min_length=1, max_length=64)] = "1"
    backend: Literal["torch"] = "torch"
    architecture: Annotated[str, Field(pattern=r"^[^:\s]+:[^:\s]+$")]
    architecture_args: dict[str, Any] = Field(default_factory=dict)
    weights: Annotated[str, Field(pattern=r"^[^\x00]+$")]
    labels: tuple[str, ...] | None = None
    input: InputSpec


def read_spec(directory: Path) -> BundleSpec:
    """Read `directory/model.yaml`.

    Raises `BundleError` naming the field at fault.
    """
    path = directory / SPEC_FILE
    try:
        content = yaml.safe_load(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise BundleError(f"{directory} is not a model bundle: it has no {SPEC_FILE}") from None
    except (OSError, ValueError, yaml.YAMLError) as error:  # ValueError: not UTF-8, or a date like 2024-13-01
        raise BundleError(f"{path} cannot be read: {error}") from error
    try:
        return BundleSpec.model_validate(content)
    except ValidationError as error:
        faults = "; ".join(f"{'.'.join(map(str, e['loc'])) or 'file'}: {e['msg']}" for e in error.errors())
        raise BundleError(f"{path}: {faults}") from error


def weights_path(spec: BundleSpec, directory: Path) -> Path:
    """The weights file that `spec` names, links followed.

    Raises `BundleError` where it lies outside `directory`: a bundle must not reach into the host's files.
    """
    path = (directory / spec.weights).resolve()
    if not path.is_relative_to(directory.resolve()):
        raise BundleError(f"weights: {spec.weights!r} lies outside the bundle {directory}")
    return path


def write_spec(spec: BundleSpec, directory: Path) -> None:
    """Write `spec` as `directory/model.yaml`, leaving out what is at its default None."""
    content = spec.model_dump(mode="json", exclude_none=True)
    text = yaml.safe_dump(content, sort_keys=False, default_flow_style=None, width=100)
    (directory / SPEC_FILE).write_text(text, encoding="utf-8")
