"""The model bundle: a directory with `model.yaml` and what it names."""

from pathlib import Path
from typing import Annotated, Any, Literal, Self

import yaml
from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from models.errors import BundleError, WeightsError
from models.layers import Folded

__all__ = [
    "BundleSpec",
    "ExportedSpec",
    "FileSpec",
    "InputSpec",
    "OnnxSpec",
    "TorchScriptSpec",
    "TorchSpec",
    "read_artefact",
    "read_spec",
    "weights_path",
    "write_spec",
]

SPEC_FILE = "model.yaml"
Side = Annotated[int, Field(ge=1, le=4096)]
# The bounds catch the commonest slip, statistics in units of 0–255.
Unit = Annotated[float, Field(ge=0, le=1)]
Spread = Annotated[float, Field(gt=0, le=1)]


class InputSpec(BaseModel):
    """What the network wants to see; `mean` and `std` are per channel in [0, 1] units.

    An image (channels, H, W) with values in [0, 1] is normalised first, then brought to `range`, and its
    axes and colours are put in order last.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    size: tuple[Side, Side]  # height, width
    channels: Literal[1, 3] = 3
    interpolation: Literal["nearest", "bilinear", "bicubic"] = "bilinear"
    mean: tuple[Unit, ...] | None = None
    std: tuple[Spread, ...] | None = None
    range: tuple[Literal[0], Literal[1, 255]] = (0, 1)  # [0, 255]: times 255, after mean and std
    layout: Literal["nchw", "nhwc"] = "nchw"
    colours: Literal["rgb", "bgr"] = "rgb"  # order of the network's channels; mean and std are in RGB order

    @model_validator(mode="after")
    def _mean_and_std_belong_together(self) -> Self:
        if (self.mean is None) != (self.std is None):
            raise ValueError("give both mean and std, or neither")
        for name, values in (("mean", self.mean), ("std", self.std)):
            if values is not None and len(values) != self.channels:
                raise ValueError(f"{name} has {len(values)} values for {self.channels} channels")
        return self

    @model_validator(mode="after")
    def _colours_need_channels(self) -> Self:
        if self.colours == "bgr" and self.channels != 3:
            raise ValueError("colours: bgr is for 3 channels")
        return self


class BundleSpec(BaseModel):
    """What every `model.yaml` says, whatever runs the network."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    name: Annotated[str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]{0,63}$")]
    version: Annotated[str, Field(min_length=1, max_length=64)] = "1"
    backend: str
    labels: tuple[str, ...] | None = None
    input: InputSpec
    output: Literal["logits", "probabilities"] = "logits"  # what the network returns, (B, classes)

    def identity(self) -> dict[str, Any]:
        """What decides the answers besides the weights, as JSON: part of the classifier's digest.

        Fields that came later are left out at their default, so that a classifier keeps its digest.
        """
        later = {name for name in ("range", "layout", "colours") if _is_default(self.input, name)}
        facts = self.model_dump(mode="json", exclude={"name", "version", "labels", "weights", "output"})
        facts["input"] = {name: value for name, value in facts["input"].items() if name not in later}
        return facts if self.output == "logits" else {**facts, "output": self.output}


class FileSpec(BundleSpec):
    """A bundle with its network, or the network's weights, in a file of its directory."""

    weights: Annotated[str, Field(pattern=r"^[^\x00]+$")]


class TorchSpec(FileSpec):
    """A network that is built by name, with weights from the file."""

    backend: Literal["torch"] = "torch"
    architecture: Annotated[str, Field(pattern=r"^[^:\s]+:[^:\s]+$")]
    architecture_args: dict[str, Any] = Field(default_factory=dict)


class ExportedSpec(FileSpec):
    """A program that `torch.export.save` wrote: `weights` is the `.pt2` file."""

    backend: Literal["exported"] = "exported"
    folded: Folded = "marked"


class OnnxSpec(FileSpec):
    """A graph for ONNX Runtime: `weights` is the `.onnx` file; `output_name` where it has several outputs."""

    backend: Literal["onnx"] = "onnx"
    folded: Folded = "marked"
    output_name: str | None = None


class TorchScriptSpec(FileSpec):
    """A program that `torch.jit.save` wrote; `batch` where it was traced for that number of images only."""

    backend: Literal["torchscript"] = "torchscript"
    batch: Annotated[int, Field(ge=1, le=4096)] | None = None


SPECS: dict[str, type[BundleSpec]] = {
    "torch": TorchSpec,
    "exported": ExportedSpec,
    "torchscript": TorchScriptSpec,
    "onnx": OnnxSpec,
}
"""What `model.yaml` holds, by its `backend`."""


def _is_default(spec: BaseModel, name: str) -> bool:
    return bool(getattr(spec, name) == type(spec).model_fields[name].default)


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
    backend = content.get("backend", "torch") if isinstance(content, dict) else "torch"
    kind = SPECS.get(backend) if isinstance(backend, str) else None
    if kind is None:
        raise BundleError(f"{path}: backend: Input should be one of {', '.join(SPECS)}; not {backend!r}")
    try:
        return kind.model_validate(content)
    except ValidationError as error:
        faults = "; ".join(f"{'.'.join(map(str, e['loc'])) or 'file'}: {e['msg']}" for e in error.errors())
        raise BundleError(f"{path}: {faults}") from error


def weights_path(spec: FileSpec, directory: Path) -> Path:
    """The weights file that `spec` names, links followed.

    Raises `BundleError` where it lies outside `directory`: a bundle must not reach into the host's files.
    """
    path = (directory / spec.weights).resolve()
    if not path.is_relative_to(directory.resolve()):
        raise BundleError(f"weights: {spec.weights!r} lies outside the bundle {directory}")
    return path


def read_artefact(spec: FileSpec, directory: Path) -> bytes:
    """The bytes of the file that `spec` names. Raises `BundleError`."""
    path = weights_path(spec, directory)
    try:
        return path.read_bytes()
    except OSError as error:
        raise WeightsError(f"{path} cannot be read: {error.strerror}") from error


def write_spec(spec: BundleSpec, directory: Path) -> None:
    """Write `spec` as `directory/model.yaml`, leaving out what is at its default."""
    stated = spec.model_dump(mode="json", exclude_defaults=True)
    content = {"name": spec.name, "version": spec.version, "backend": spec.backend} | stated
    text = yaml.safe_dump(content, sort_keys=False, default_flow_style=None, width=100)
    (directory / SPEC_FILE).write_text(text, encoding="utf-8")
