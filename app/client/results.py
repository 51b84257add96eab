"""What a gateway says of an image, typed."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

__all__ = ["Detection", "Prediction", "Result"]


@dataclass(frozen=True)
class Prediction:
    """`confidence` is None where the model gives labels only."""

    label: int
    name: str | None
    confidence: float | None


@dataclass(frozen=True)
class Detection:
    """What one detector said; coarse unless the caller may know more. None: not a number, or no limit."""

    detector: str
    score: float | None
    threshold: float | None
    p_value: float | None
    suspicious: bool
    exact: bool


@dataclass(frozen=True)
class Result:
    """The outcome for one image. `verdict` is `accepted`, `rejected`, `flagged` or `uninspected`, and None
    where the image could not be read: `error` then says why. A rejected image has no `prediction`.
    `content` is the gateway's own JSON."""

    verdict: str | None
    prediction: Prediction | None
    detections: tuple[Detection, ...]
    error: str | None
    content: Mapping[str, Any] = field(repr=False, compare=False)

    @property
    def accepted(self) -> bool:
        """True where every detector has cleared the image; nothing else is a label to rely on."""
        return self.verdict == "accepted"

    @classmethod
    def of(cls, content: Mapping[str, Any]) -> "Result":
        """Read one entry of `results`; fields that this version does not know are left in `content`."""
        prediction, error = content["prediction"], content.get("error")
        return cls(
            verdict=content["verdict"],
            prediction=None if prediction is None else Prediction(**_known(Prediction, prediction)),
            detections=tuple(Detection(**_known(Detection, each)) for each in content["detections"]),
            error=None if error is None else error["detail"],
            content=content,
        )


def _known(kind: type, content: Mapping[str, Any]) -> dict[str, Any]:
    return {name: content[name] for name in kind.__dataclass_fields__}  # type: ignore[attr-defined]
