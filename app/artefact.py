"""A calibration as one file, to be moved from one gateway to another: JSON with its digest inside.

{"format": "triggerwall-calibration", "format_version": 1, "sha256": ..., "calibration": {...}}

The digest is over the calibration as canonical JSON (sorted keys, no spaces, ASCII). It finds damage, not
forgery: who may import may calibrate, too. Nothing in the file is code.
"""

import hashlib
import json
from datetime import datetime
from itertools import pairwise
from typing import Annotated, Any, Literal, Self

from pydantic import (
    AwareDatetime,
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    FiniteFloat,
    NonNegativeInt,
    ValidationError,
    model_validator,
)

from app.storage.calibrations import Record

__all__ = ["FORMAT", "FORMAT_VERSION", "ArtefactError", "read_artefact", "write_artefact"]

FORMAT = "triggerwall-calibration"
FORMAT_VERSION = 1

Share = Annotated[FiniteFloat, Field(gt=0, lt=1)]
Scores = list[FiniteFloat]
Count = Annotated[NonNegativeInt, Field(lt=2**53)]


def _time(value: Any) -> Any:
    return datetime.fromisoformat(value) if isinstance(value, str) else None


Time = Annotated[AwareDatetime, BeforeValidator(_time)]


class ArtefactError(Exception):
    """Raised for a file that is no calibration, is damaged, or holds what cannot be enforced."""


class _Strict(BaseModel):
    model_config = ConfigDict(strict=True, extra="allow")


class _Group(_Strict):
    labels: Annotated[list[NonNegativeInt], Field(min_length=1)]
    scores: Annotated[Scores, Field(min_length=1)]


class _Part(_Strict):
    detector: str
    settings: dict[str, Any]
    fit: dict[str, Any]
    alpha: Share
    groups: list[_Group]
    pooled: Annotated[Scores, Field(min_length=1)]
    stages: list[list[NonNegativeInt]]
    ties: Literal["conservative", "randomised"] = "conservative"
    contamination: Annotated[FiniteFloat, Field(ge=0, lt=0.5)] = 0.0

    @model_validator(mode="after")
    def _in_order(self) -> Self:
        for scores in (self.pooled, *(group.scores for group in self.groups)):
            if any(left > right for left, right in pairwise(scores)):
                raise ValueError("benign scores must be in ascending order")
        return self


class _Screening(_Strict):
    suspects: list[NonNegativeInt]
    left_out: bool
    sentences: list[str]


class _Content(_Strict):
    classifier_digest: str
    alpha: Share
    images: Count
    labelled: bool
    conditioning: Literal["class", "marginal"]
    detectors: Annotated[list[_Part], Field(min_length=1)]
    secret: Annotated[str, Field(pattern=r"^[0-9a-f]{64}$")] | None = None
    screening: _Screening | None = None

    @model_validator(mode="after")
    def _lots_can_be_drawn(self) -> Self:
        if self.secret is None and any(part.ties == "randomised" for part in self.detectors):
            raise ValueError("ties are settled by lot, and the secret that draws the lots is missing")
        return self


class _Calibration(BaseModel):
    model_config = ConfigDict(strict=True, extra="forbid")

    id: Annotated[str, Field(pattern=r"^[0-9A-Za-z-]{1,64}$")]
    created_at: Time
    classifier_digest: Annotated[str, Field(max_length=128)]
    model_name: Annotated[str, Field(max_length=256)]
    model_version: Annotated[str, Field(max_length=256)]
    alpha: Share
    images: Count
    content: _Content
    report: dict[str, Any]

    @model_validator(mode="after")
    def _of_one_piece(self) -> Self:
        for name in ("classifier_digest", "alpha", "images"):
            if getattr(self, name) != getattr(self.content, name):
                raise ValueError(f"{name} is not that of its content")
        return self


def write_artefact(record: Record) -> bytes:
    """The file of `record`."""
    calibration = {**record.__dict__, "created_at": record.created_at.isoformat()}
    head = {"format": FORMAT, "format_version": FORMAT_VERSION, "sha256": _digest(calibration)}
    return json.dumps({**head, "calibration": calibration}, allow_nan=False).encode()


def read_artefact(data: bytes) -> Record:
    """The calibration in the file `data`. Raises `ArtefactError` with the reason."""
    try:
        found = json.loads(data, parse_constant=_no_constant)
    except (ValueError, RecursionError) as error:
        raise ArtefactError(f"the file is not JSON: {error}") from error
    if not isinstance(found, dict) or found.get("format") != FORMAT:
        raise ArtefactError(f"the file is no calibration: its `format` is not {FORMAT}")
    if found.get("format_version") != FORMAT_VERSION:
        raise ArtefactError(
            f"the file has format version {str(found.get('format_version'))[:20]}, and this Triggerwall "
            f"reads {FORMAT_VERSION}: export it again with this release"
        )
    calibration = found.get("calibration")
    if not isinstance(calibration, dict) or found.get("sha256") != _digest(calibration):
        raise ArtefactError("the file was damaged or changed: its sha256 does not match; export it again")
    _check(calibration)
    return Record(**{**calibration, "created_at": datetime.fromisoformat(calibration["created_at"])})


def _digest(calibration: Any) -> str:
    text = json.dumps(calibration, sort_keys=True, separators=(",", ":"), ensure_ascii=True)
    return hashlib.sha256(text.encode()).hexdigest()


def _check(calibration: Any) -> None:
    try:
        _Calibration.model_validate(calibration)
    except ValidationError as error:
        fault = error.errors()[0]
        where = ".".join(map(str, fault["loc"])) or "calibration"
        raise ArtefactError(f"the file's calibration makes no sense: {where}: {fault['msg']}") from error


def _no_constant(name: str) -> float:
    raise ValueError(f"{name} is not JSON")
