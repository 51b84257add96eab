"""What the protocol's metadata paths say of the gateway and of its model."""

from collections.abc import Sequence
from importlib.metadata import version

from pydantic import BaseModel, Field

from app.v2.outputs import output_metadata
from models.base import ClassifierInfo

__all__ = ["LiveBody", "ModelMetadata", "ModelReadyBody", "ReadyBody", "ServerMetadata", "TensorMetadata"]

PLATFORM = "triggerwall"


class ServerMetadata(BaseModel):
    name: str
    version: str
    extensions: list[str]

    @classmethod
    def ours(cls) -> "ServerMetadata":
        return cls(name=PLATFORM, version=version("triggerwall"), extensions=["binary_tensor_data"])


class LiveBody(BaseModel):
    live: bool


class ReadyBody(BaseModel):
    ready: bool


class ModelReadyBody(BaseModel):
    name: str
    ready: bool


class TensorMetadata(BaseModel):
    name: str
    datatype: str
    shape: list[int] = Field(description="-1: any length.")
    parameters: dict[str, str] = {}


class ModelMetadata(BaseModel):
    """One input is sent, under any name; these are the ways to send it."""

    name: str
    versions: list[str]
    platform: str
    inputs: list[TensorMetadata]
    outputs: list[TensorMetadata]

    @classmethod
    def of(cls, info: ClassifierInfo, detectors: Sequence[str]) -> "ModelMetadata":
        """The input is the classifier's own tensor: what a client builds from metadata goes straight in."""
        pixels = TensorMetadata(
            name="image",
            datatype="FP32",
            shape=[-1, info.channels, *info.size],
            parameters={"range": "0 to 1"},
        )
        return cls(
            name=info.name,
            versions=[info.version],
            platform=PLATFORM,
            inputs=[pixels],
            outputs=[TensorMetadata(**each) for each in output_metadata(info, detectors)],
        )
