"""The bodies about decisions, quarantine and incidents, as clients see them."""

import re
from datetime import datetime
from typing import Annotated, Any, Self

from pydantic import (
    AwareDatetime,
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    FiniteFloat,
    model_validator,
)

from app.firewall import Suggested
from app.policy import Mode, Verdict
from app.schemas import DetectionBody, SuggestedLabel
from app.storage.decisions import Decision
from app.storage.incidents import Incident
from app.storage.quarantine import Held, Mark
from app.storage.what_if import Outcome, WhatIf
from detectors.base import Floats
from models.base import ClassifierInfo

__all__ = [
    "DecisionBody",
    "DecisionsBody",
    "DistributionBody",
    "ExplanationBody",
    "HeldBody",
    "IncidentBody",
    "IncidentsBody",
    "MarkBody",
    "MarkedBody",
    "Moment",
    "QuarantineBody",
    "ReviewBody",
    "TrafficBody",
    "WhatIfAsked",
    "WhatIfBody",
]

Sha256 = Annotated[str, Field(pattern=r"^[0-9a-f]{64}$")]
Limit = Annotated[
    FiniteFloat, Field(strict=True, description="A threshold: suspicious where score > threshold.")
]

DATE = re.compile(r"\d{4}-\d\d-\d\d[Tt ]")


def written_out(value: Any) -> Any:
    """A date and time, not a number of seconds since 1970, which nobody would mean."""
    if not isinstance(value, str) or DATE.match(value) is None:
        raise ValueError("say a date and time, as 2026-01-31T12:00:00Z")
    return value


Moment = Annotated[AwareDatetime, BeforeValidator(written_out)]


class DecisionBody(BaseModel):
    """One image that was judged. The label is there whether or not it left."""

    id: str = Field(description="Sorts by time; digits.")
    at: datetime
    request_id: str
    place: int = Field(description="Of the image in its request, from 0.")
    image_sha256: str = Field(description="Of the bytes as received; of a tensor, of its 8-bit values.")
    label: int
    confidence: float | None
    verdict: Verdict
    mode: Mode
    calibration: str | None
    detections: list[DetectionBody]

    @classmethod
    def of(cls, decision: Decision) -> Self:
        names = ("at", "request_id", "place", "image_sha256", "label", "confidence", "verdict", "mode")
        return cls(
            id=str(decision.id),
            calibration=decision.calibration_id,
            detections=[DetectionBody.of(found) for found in decision.detections],
            **{name: getattr(decision, name) for name in names},
        )


class DecisionsBody(BaseModel):
    decisions: list[DecisionBody] = Field(description="The newest first.")
    next: str | None = Field(description="Ask again with this as `before`; null where nothing follows.")


class TrafficStep(BaseModel):
    at: datetime
    images: dict[Verdict, int]


class TrafficBody(BaseModel):
    """Images by verdict and time; steps without any are left out."""

    step_minutes: int
    steps: list[TrafficStep]


class DistributionBody(BaseModel):
    """Scores of one detector over the newest decisions."""

    detector: str
    edges: list[float]
    cleared: list[int] = Field(description="Between neighbouring edges.")
    suspicious: list[int]
    bounds: int = Field(description="How many of them are bounds: the detector stopped early.")
    threshold: float | None = Field(description="That of the newest decision.")


class WhatIfAsked(BaseModel):
    """Other thresholds. A detector that is named nowhere goes by what it said."""

    model_config = ConfigDict(extra="forbid")

    alpha: float | None = Field(
        default=None,
        gt=0,
        lt=1,
        description="Budget over all detectors together, split as the calibration enforced splits its own.",
    )
    thresholds: Annotated[dict[str, Limit], Field(max_length=32)] = Field(
        default={}, description="T by detector; it wins over alpha."
    )
    since: Moment | None = None
    until: Moment | None = None
    most: int = Field(default=100_000, ge=1, le=1_000_000, description="Newest decisions to look at.")

    @model_validator(mode="after")
    def _asks_something(self) -> Self:
        if self.alpha is None and not self.thresholds:
            raise ValueError("give alpha, or thresholds by detector")
        return self


class OutcomeBody(BaseModel):
    decisions: int
    suspicious: int = Field(description="As they were judged.")
    at_least: int = Field(description="Would have been suspicious for certain.")
    at_most: int = Field(description="Could have been: scores of detectors that stopped early are bounds.")

    @classmethod
    def of(cls, outcome: Outcome) -> Self:
        return cls.model_validate(outcome, from_attributes=True)


class WhatIfBody(BaseModel):
    all: OutcomeBody
    marked: dict[Mark, OutcomeBody] = Field(description="Images in quarantine by their mark, each once.")

    @classmethod
    def of(cls, found: WhatIf) -> Self:
        marked = {mark: OutcomeBody.of(outcome) for mark, outcome in found.marked.items()}
        return cls(all=OutcomeBody.of(found.all), marked=marked)


class HeldBody(BaseModel):
    """One image in quarantine, by the last decision on it."""

    sha256: str
    decision: str
    stored_at: datetime
    size: int = Field(description="Bytes.")
    media_type: str
    times: int = Field(description="How often it came.")
    label: int
    confidence: float | None
    verdict: Verdict
    mark: Mark | None
    marked_by: str | None
    marked_at: datetime | None

    @classmethod
    def of(cls, held: Held) -> Self:
        values = {name: value for name, value in held.__dict__.items() if name != "decision_id"}
        return cls(decision=str(held.decision_id), **values)


class QuarantineBody(BaseModel):
    images: list[HeldBody] = Field(description="Those judged last first.")
    next: str | None = Field(description="Ask again with this as `before`; null where nothing follows.")
    total: int = Field(description="Images that the filters take.")


class ReviewBody(BaseModel):
    mark: Mark | None = Field(description="Null: a mark was taken back.")
    by: str
    at: datetime


class HeldWithReviews(HeldBody):
    reviews: list[ReviewBody] = Field(description="Every mark it ever had, the newest first.")


class MarkBody(BaseModel):
    """What a reviewer says of some images."""

    model_config = ConfigDict(extra="forbid")

    images: Annotated[list[Sha256], Field(min_length=1, max_length=1000)]
    mark: Mark | None = Field(description="Null takes the mark back.")
    by: Annotated[str, Field(min_length=1, max_length=80)] = Field(
        default="admin", description="Who says so."
    )


class MarkedBody(BaseModel):
    marked: int = Field(description="Of the images named; the others are not in quarantine.")


class ExplanationBody(BaseModel):
    """Why one image was rejected, as far as changing it tells."""

    label: int = Field(description="The label that it was rejected with.")
    suggested_label: SuggestedLabel | None = Field(
        description="Null where the classifier has one class only."
    )
    sensitivity: list[list[float]] = Field(
        description="Row by row from the top: log-odds of `label` that covering a quarter of the side takes "
        "away, the covers an eighth apart. A patch stands out; a trigger all over the image does not."
    )

    @classmethod
    def of(
        cls, label: int, suggested: Suggested | None, sensitivity: Floats, info: ClassifierInfo
    ) -> "ExplanationBody":
        told = None if suggested is None else SuggestedLabel.of(suggested, info)
        return cls(label=label, suggested_label=told, sensitivity=sensitivity.tolist())


class IncidentBody(BaseModel):
    """Rejections that share a label and follow each other closely."""

    label: int
    name: str | None
    rejections: int
    first: datetime
    last: datetime
    first_decision: str
    last_decision: str

    @classmethod
    def of(cls, incident: Incident, name: str | None) -> Self:
        return cls(
            label=incident.label,
            name=name,
            rejections=incident.rejections,
            first=incident.first,
            last=incident.last,
            first_decision=str(incident.first_id),
            last_decision=str(incident.last_id),
        )


class IncidentsBody(BaseModel):
    incidents: list[IncidentBody] = Field(description="Those seen last first.")
