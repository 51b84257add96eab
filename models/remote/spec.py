"""What `model.yaml` says of a classifier behind an endpoint."""

from typing import Annotated, Any, Literal, Self
from urllib.parse import urlsplit

from pydantic import BaseModel, ConfigDict, Field, field_validator, model_validator

from models.bundle import BundleSpec

__all__ = ["IMAGE", "IMAGES", "JsonCalls", "RemoteSpec", "base_url"]

IMAGES, IMAGE = "$images", "$image"
TRANSPORT = {"url", "max_batch", "tensors", "input_name"}  # fields that change no answer


class JsonCalls(BaseModel):
    """How to ask an endpoint that has a JSON interface of its own.

    In `request` the text `$images` stands for the list of images. Each is `item`, in which `$image` stands
    for the image itself: a PNG in base64, or nested lists of pixels. `answer` is the way to the list with
    one entry per image, `entry` from there to a label or to all probabilities: names and numbers with dots
    between them, nothing for the place itself.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    path: str = ""  # after `url`
    request: Any = Field(default_factory=lambda: {"instances": "$images"})
    item: Any = "$image"
    image: Literal["png", "pixels"] = "png"
    answer: str = "predictions"
    entry: str = ""

    @model_validator(mode="after")
    def _images_have_a_place(self) -> Self:
        for name, template, mark in (("request", self.request, IMAGES), ("item", self.item, IMAGE)):
            if count(template, mark) != 1:
                raise ValueError(f"{name}: the text {mark} has to be in it, once")
        return self


class RemoteSpec(BundleSpec):
    """Somebody else's endpoint. `num_classes` may be left out where `labels` name them all.

    `version` is part of the identity: raise it when the endpoint serves another network, since nobody here
    can see that.
    """

    backend: Literal["remote"] = "remote"
    url: str
    protocol: Literal["v2", "json"] = "v2"
    model_name: Annotated[str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]{0,127}$")] | None = None
    model_version: Annotated[str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]{0,63}$")] | None = None
    access: Literal["labels", "probabilities"]
    output: Literal["logits", "probabilities"] = "probabilities"
    num_classes: Annotated[int, Field(ge=2, le=1_000_000)] | None = None
    max_batch: Annotated[int, Field(ge=1, le=4096)] = 32  # images per request
    datatype: Literal["FP32", "UINT8", "BYTES"] = "FP32"  # v2; BYTES: each image a PNG
    tensors: Literal["json", "binary"] = "json"  # v2
    input_name: str = "image"  # v2
    output_name: str | None = None  # v2; needed where the model has several
    json_calls: JsonCalls = Field(default_factory=JsonCalls)

    @field_validator("url")
    @classmethod
    def _is_a_base_url(cls, url: str) -> str:
        return base_url(url)

    @model_validator(mode="after")
    def _consistent(self) -> Self:
        if self.protocol == "v2" and self.model_name is None:
            raise ValueError("the protocol v2 needs a model_name")
        if self.num_classes is None and self.labels is None:
            raise ValueError(
                "give labels or num_classes: an endpoint does not tell how many classes there are"
            )
        if self.labels is not None and self.num_classes not in (None, len(self.labels)):
            raise ValueError(f"labels: {len(self.labels)} names for {self.num_classes} classes")
        self._check_input()
        return self

    def _check_input(self) -> None:
        given = self.input
        if self.sends_png and (given.mean or given.layout != "nchw" or given.colours != "rgb"):
            raise ValueError("input: mean, std, layout and colours are for pixels, and PNGs are sent")
        if self.datatype == "UINT8" and given.mean:
            raise ValueError("input: mean and std leave fractions, which UINT8 cannot carry")

    @property
    def sends_png(self) -> bool:
        return self.json_calls.image == "png" if self.protocol == "json" else self.datatype == "BYTES"

    @property
    def classes(self) -> int:
        return self.num_classes or len(self.labels or ())

    def identity(self) -> dict[str, Any]:
        """What decides the answers, as far as anybody here can know: not where the endpoint is."""
        facts = {**super().identity(), "version": self.version}
        return {name: value for name, value in facts.items() if name not in TRANSPORT}


def base_url(url: str) -> str:
    """`url` without a slash at its end. Raises `ValueError` for what is no plain http(s) address."""
    parts = urlsplit(url)
    if parts.scheme not in ("http", "https") or not parts.hostname or parts.query or parts.fragment:
        raise ValueError("has to be like https://host:port/path, without a query")
    if parts.username is not None or parts.password is not None:
        raise ValueError("holds a credential; set TRIGGERWALL_REMOTE_CREDENTIAL instead")
    return url.rstrip("/")


def count(template: Any, mark: str) -> int:
    """How often the text `mark` stands in a JSON value."""
    if isinstance(template, dict):
        return sum(count(value, mark) for value in template.values())
    if isinstance(template, list):
        return sum(count(value, mark) for value in template)
    return int(template == mark)
