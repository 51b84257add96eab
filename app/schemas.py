"""The bodies that the gateway answers, as clients see them."""

import math
from dataclasses import asdict
from datetime import datetime
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field

from app.callers.identity import Caller
from app.firewall import Inspection, Suggested
from app.gateway import Gateway
from app.policy import Detection, Mode, Verdict
from app.sharing.exchange import FleetView
from app.storage.calibrations import Record
from app.watch import DriftWatch
from detectors.base import Detector, Scorer
from detectors.drift import State
from models.base import ClassifierInfo

__all__ = [
    "ActivationBody",
    "CalibrationBody",
    "CalibrationHistory",
    "CalibrationReport",
    "ClassifyBody",
    "ComparisonBody",
    "DetectionBody",
    "DriftBody",
    "ImageProblem",
    "InfoBody",
    "LearningBody",
    "ModeBody",
    "PredictionBody",
    "ProblemBody",
    "ProgressBody",
    "ResultBody",
    "StatusBody",
    "SuggestedLabel",
    "TrafficCalibration",
]


class ProblemBody(BaseModel):
    """An RFC 9457 problem."""

    model_config = ConfigDict(extra="allow")

    type: str = Field(description="Stable URI of the kind of problem; `about:blank` for plain HTTP errors.")
    title: str
    status: int
    detail: str = Field(description="What happened and what to do about it.")
    instance: str = Field(description="The path that was asked.")
    request_id: str
    part: str | None = Field(default=None, description="The part, field or archive entry at fault.")


class ImageProblem(BaseModel):
    """Why one image of a request has no result; the other images do."""

    part: str = Field(description="The image's place in the request: images[0] is the first.")
    type: str
    title: str
    status: int
    detail: str


class PredictionBody(BaseModel):
    label: int = Field(description="Index of the predicted class, from 0.")
    name: str | None = Field(description="Its name, where the bundle names classes.")
    confidence: float | None = Field(
        description="Softmax probability; null where the model gives labels only."
    )


class DetectionBody(BaseModel):
    """What one detector said; coarsely to a caller who is not the admin, unless the gateway opens scores."""

    detector: str
    score: float | None = Field(
        description="Higher is more suspicious. Null: not a number, never cleared. Coarse: 1 - `p_value`, or "
        "1 where suspicious and 0 where not."
    )
    threshold: float | None = Field(
        description="Suspicious where score > threshold. Null: no score can be suspicious. Coarse: null."
    )
    p_value: float | None = Field(
        description="Share of benign calibration scores at least as high; a bound where `exact` is false. "
        "Null under the papers' fixed thresholds without a calibration. Coarse: 0 where suspicious, else "
        "rounded up to 0.1, 0.5 or 1."
    )
    suspicious: bool
    exact: bool = Field(
        description="False where the verdict was certain early: the score is then a bound. Coarse: false."
    )

    @classmethod
    def of(cls, found: Detection) -> "DetectionBody":
        return cls(
            detector=found.detector,
            score=_finite(found.score),
            threshold=_finite(found.threshold),
            p_value=found.p_value,
            suspicious=found.suspicious,
            exact=found.exact,
        )


class SuggestedLabel(BaseModel):
    """What a suspicious image most likely shows: what the classifier says once the trigger is disarmed."""

    label: int
    name: str | None = Field(description="Its name, where the bundle names classes.")
    share: float = Field(
        description="Mean probability of the label under changes that disarm many triggers; near 0 where "
        "none of them disarmed anything, and the suggestion is little more than a guess."
    )

    @classmethod
    def of(cls, found: Suggested, info: ClassifierInfo) -> "SuggestedLabel":
        return cls(label=found.label, name=info.name_of(found.label), share=found.share)


class ResultBody(BaseModel):
    """The outcome for one image."""

    verdict: Verdict | None = Field(description="Null where the image could not be read.")
    prediction: PredictionBody | None = Field(description="Null where rejected, and where there is an error.")
    detections: list[DetectionBody]
    suggested_label: SuggestedLabel | None = Field(
        default=None, description="Only for the admin, and only where the image is suspicious."
    )
    error: ImageProblem | None = Field(
        default=None, description="Only where the image could not be read or judged."
    )

    @classmethod
    def of(cls, inspection: Inspection, info: ClassifierInfo) -> "ResultBody":
        """The prediction stays here where the image was rejected."""
        prediction = PredictionBody(
            label=inspection.label, name=info.name_of(inspection.label), confidence=inspection.confidence
        )
        body = cls(
            verdict=inspection.verdict,
            prediction=None if inspection.verdict is Verdict.REJECTED else prediction,
            detections=[DetectionBody.of(found) for found in inspection.detections],
        )
        if inspection.suggested is not None:
            body.suggested_label = SuggestedLabel.of(inspection.suggested, info)
        return body


class ModelBody(BaseModel):
    name: str
    version: str


class ClassifyBody(BaseModel):
    """One result per image, in the order of the request."""

    request_id: str
    model: ModelBody
    calibration: str | None = Field(description="Id of the calibration that judged.")
    mode: Mode
    results: list[ResultBody]


class SkippedBody(BaseModel):
    part: str
    detail: str


class CalibratedModel(ModelBody):
    digest: str = Field(description="SHA-256 over weights, architecture and preprocessing.")


class CalibrationBody(BaseModel):
    """One calibration, in brief."""

    id: str
    created_at: datetime
    active: bool
    model: CalibratedModel
    alpha: float = Field(description="False-positive budget over all detectors together.")
    images: int

    @classmethod
    def of(cls, record: Record, active: str | None) -> "CalibrationBody":
        model = CalibratedModel(
            name=record.model_name, version=record.model_version, digest=record.classifier_digest
        )
        return cls(
            id=record.id,
            created_at=record.created_at,
            active=record.id == active,
            model=model,
            alpha=record.alpha,
            images=record.images,
        )


class CalibrationReport(CalibrationBody):
    """What a calibration buys on this model, per detector and class."""

    origin: Literal["images", "traffic"] = Field(
        default="images", description="Benign images that were sent, or the gateway's own traffic."
    )
    left_out: int = Field(default=0, description="Images of traffic left out as least like the rest.")
    labelled: bool
    smallest_alpha: float = Field(description="Smallest budget that so many images support.")
    benign_accuracy: float | None = Field(description="Share of labelled benign images classified rightly.")
    conditioning: str
    detectors: list[dict[str, Any]]
    together: dict[str, Any] | None = Field(
        default=None,
        description="What all detectors together reject of these benign images: `achieved_fpr`, with its "
        "95 % interval. Null in calibrations of older releases.",
    )
    contamination: dict[str, Any] | None = Field(
        default=None,
        description="Do the images carry a trigger themselves? How sure that is, for which label, and the "
        "`suspects` by position among the readable images, the first 100 by name in `suspect_parts`.",
    )
    passes: dict[str, float] | None = Field(
        default=None,
        description="Forward passes per image with the plain one: `full`, and `expected` on benign images.",
    )
    evidence: list[dict[str, Any]] = Field(
        default=[], description="Collapse of benign predictions, beside what other models show."
    )
    regression: dict[str, Any] | None = Field(
        default=None,
        description="Images that reviewers marked as triggers: how many of the `images` it has `stopped`, by "
        "which `detectors`, and those it `missed` by their SHA-256. Null where none were marked.",
    )
    warnings: list[str] = Field(description="Sentences for the operator.")
    skipped_images: int
    skipped: list[SkippedBody] = Field(description="Images that could not be read; the first 100.")

    @classmethod
    def of(cls, record: Record, active: str | None) -> "CalibrationReport":
        brief = CalibrationBody.of(record, active).model_dump()
        return cls.model_validate({**record.report, **brief})


class SideBody(BaseModel):
    """One of two calibrations that are compared."""

    id: str
    created_at: datetime
    model: ModelBody
    classifier_digest: str
    alpha: float
    images: int
    labelled: bool | None
    benign_accuracy: float | None
    conditioning: str | None
    fits: bool = Field(description="False where it cannot be enforced on what is served; `misfit` says why.")
    misfit: str | None


class ComparisonBody(BaseModel):
    """Two calibrations side by side."""

    a: SideBody
    b: SideBody
    detectors: list[dict[str, Any]] = Field(
        description="Per detector: budget, achieved FPR, power, k, and the threshold of every label."
    )
    differences: list[str] = Field(description="What changes from `a` to `b`, in words.")


class ActivationBody(BaseModel):
    calibration: str
    at: datetime
    reason: str


class CalibrationHistory(BaseModel):
    """Everything that was ever calibrated here, and what was active when; the newest first."""

    active: str | None
    calibrations: list[CalibrationBody]
    activations: list[ActivationBody]


class TrafficCalibration(BaseModel):
    """How to calibrate on traffic."""

    model_config = ConfigDict(extra="forbid")

    alpha: float | None = Field(
        default=None, gt=0, lt=1, description="False-positive budget; the setting's by default."
    )
    contamination: float | None = Field(
        default=None, ge=0, le=0.2, description="Share that may be poisoned; the setting's by default."
    )
    activate: bool = Field(default=True, description="Judge by it at once.")


class ModeBody(BaseModel):
    model_config = ConfigDict(extra="forbid")

    mode: Mode


class StatusBody(BaseModel):
    status: str


class TopLabelBody(BaseModel):
    label: int
    share: float = Field(description="Of recent rejections.")
    expected: float = Field(description="Of recent predictions.")
    rejections: int = Field(description="How many that is a share of.")


class FleetBody(BaseModel):
    """Is the traffic of all gateways together still like the calibration images?"""

    state: State
    gateways: int = Field(description="Gateways whose sums are in it.")
    images: int = Field(description="Images taken in since this gateway first looked.")
    alarms: int
    alarmed_by: str | None = Field(description="The test that raised the last alarm.")
    evidence: dict[str, float] = Field(description="As that of one gateway.")
    top_label: TopLabelBody | None = Field(description="The label with most of the recent rejections.")

    @classmethod
    def of(cls, seen: FleetView, *, exact: bool) -> "FleetBody":
        top = seen.top_label
        return cls(
            state=seen.state,
            gateways=seen.gateways,
            images=seen.images,
            alarms=seen.alarms,
            alarmed_by=seen.alarmed_by,
            evidence=dict(seen.evidence) if exact else {},
            top_label=TopLabelBody.model_validate(top, from_attributes=True) if top else None,
        )


class DriftBody(BaseModel):
    """Is traffic still like the calibration images?"""

    state: State
    images: int = Field(description="Images watched under this calibration.")
    alarms: int
    alarmed_by: str | None = Field(description="The test that raised the last alarm.")
    evidence: dict[str, float] = Field(
        description="By test, on a logarithmic scale: 0 is none, 1 raises an alarm and starts again. Empty "
        "for callers who are told coarse scores."
    )
    top_label: TopLabelBody | None = Field(description="The label with most of the recent rejections.")
    fleet: FleetBody | None = Field(
        default=None,
        description="The same of all gateways on this database together; null without `database_url`.",
    )

    @classmethod
    def of(cls, watch: DriftWatch, fleet: FleetView | None, *, exact: bool) -> "DriftBody":
        """Evidence only where the caller may know it `exact`: between two requests it tells a p-value."""
        monitor = watch.monitor
        if monitor is None:
            return cls(state=watch.state, images=0, alarms=0, alarmed_by=None, evidence={}, top_label=None)
        whole = None if fleet is None else FleetBody.of(fleet, exact=exact)
        top = monitor.top_label()
        return cls(
            state=monitor.state,
            images=monitor.images,
            alarms=monitor.alarms,
            alarmed_by=monitor.alarmed_by,
            evidence=monitor.statistics() if exact else {},
            top_label=TopLabelBody.model_validate(top, from_attributes=True) if top else None,
            fleet=whole,
        )


class LearningBody(BaseModel):
    """What was learnt from traffic so far; lost with a restart."""

    learning: bool = Field(description="True where traffic is measured now: in monitor mode.")
    images: int = Field(description="Images whose evidence is kept.")
    capacity: int = Field(description="Images that will be kept at most.")
    needed: int = Field(description="Fewest images for the setting's budget.")
    measured: int = Field(description="Images measured in all; the kept ones are drawn from these.")
    elsewhere: int = Field(
        description="Images that other gateways on this database measured, told every `sketch_interval_s`; a "
        "calibration is made on a sample of all."
    )

    @classmethod
    def of(cls, gateway: Gateway) -> "LearningBody | None":
        if gateway.learner is None:
            return None
        kept = gateway.learner.reservoir
        return cls(
            learning=gateway.firewall.mode is Mode.MONITOR,
            images=len(kept),
            capacity=kept.capacity,
            needed=gateway.images_needed(gateway.settings.alpha),
            measured=kept.seen,
            elsewhere=gateway.learner.elsewhere(),
        )


class DetectorInfo(BaseModel):
    name: str
    needs: str
    settings: dict[str, Any]
    watching: bool = Field(description="True where it has a say in verdicts now.")
    engine: str | None = Field(description="What computes its scores, and why where it is a fallback.")
    stages: list[list[int]] | None = Field(description="Order of evaluation; it stops when certain.")

    @classmethod
    def of(cls, detector: Detector, scorer: Scorer | None) -> "DetectorInfo":
        return cls(
            name=detector.name,
            needs=detector.needs,
            settings=detector.settings(),
            watching=scorer is not None,
            engine=scorer.engine if scorer else None,
            stages=[list(stage) for stage in scorer.stages] if scorer else None,
        )


class ServedModel(CalibratedModel):
    architecture: str
    backend: str
    access: str
    classes: int
    labels: list[str] | None
    channels: int
    size: tuple[int, int] = Field(description="Height and width to which images are resized.")
    engine: str | None = Field(
        description="What computes its predictions, and why where it is a fallback; null for other runtimes."
    )


class ProgressBody(BaseModel):
    """How far the calibration under way is."""

    stage: str = Field(description="`receiving`, `measuring` or `fitting`.")
    done: int = Field(description="Images measured.")
    total: int | None = Field(description="Images to measure; null while they are received.")


class InfoBody(BaseModel):
    """What is served, by what it is guarded, and whether it may be trusted with traffic."""

    model: ServedModel
    device: str
    mode: Mode
    thresholds: str
    conditioning: str
    alpha: float = Field(description="Budget of a calibration that names none.")
    images_needed: int = Field(description="Fewest benign images for that budget.")
    detectors: list[DetectorInfo]
    calibration: CalibrationBody | None
    drift: DriftBody
    learning: LearningBody | None = Field(description="Null where `learn_from_traffic` is off.")
    calibrating: ProgressBody | None = Field(description="The calibration under way, if there is one.")
    decisions: dict[str, Any] = Field(
        description="Whether decisions are kept (`on`), how many could not be since the start (`dropped`), "
        "and what is wrong now (`problem`)."
    )
    quarantine: dict[str, Any] = Field(description="The same of images.")
    ready: bool
    reason: str | None = Field(description="Why not ready, or why the stored calibration is not enforced.")
    scores: Literal["exact", "coarse"] = Field(description="What this caller is told of scores and p-values.")
    key_needed: bool = Field(description="True where POST /classify takes callers with a key only.")
    rate_limit: float | None = Field(
        description="Images a second that one caller may send; null: any number."
    )
    limits: dict[str, int | list[str]]

    @classmethod
    def of(cls, gateway: Gateway, caller: Caller) -> "InfoBody":
        exact = gateway.tells_exactly(caller)
        firewall, settings, info = gateway.firewall, gateway.settings, gateway.info
        watches = {w.detector: w.scorer for w in firewall.guard.watches} if firewall.guard else {}
        active, not_ready = gateway.calibrator.active, gateway.not_ready()
        progress = gateway.calibrator.progress
        names = (
            "name",
            "version",
            "digest",
            "architecture",
            "backend",
            "access",
            "labels",
            "channels",
            "size",
        )
        model = {name: getattr(info, name) for name in names}
        computed = {"classes": info.num_classes, "engine": firewall.engine}
        return cls(
            model=ServedModel.model_validate({**model, **computed}),
            device=firewall.device,
            mode=firewall.mode,
            thresholds=firewall.thresholds,
            conditioning=firewall.conditioning,
            alpha=settings.alpha,
            images_needed=gateway.images_needed(settings.alpha),
            detectors=[DetectorInfo.of(each, watches.get(each.name)) for each in firewall.detectors],
            calibration=CalibrationBody.of(active, active.id) if active else None,
            drift=DriftBody.of(gateway.watch, gateway.fleet, exact=exact),
            learning=LearningBody.of(gateway),
            calibrating=ProgressBody.model_validate(asdict(progress)) if progress else None,
            decisions=asdict(gateway.recording.decisions),
            quarantine=asdict(gateway.recording.quarantine),
            ready=not_ready is None,
            reason=not_ready or gateway.calibrator.mismatch,
            scores="exact" if exact else "coarse",
            key_needed=gateway.keys.has_callers,
            rate_limit=settings.rate_limit,
            limits={
                "max_images": settings.max_images,
                "max_body_bytes": settings.max_body_bytes,
                "max_image_bytes": settings.max_image_bytes,
                "max_pixels": settings.max_pixels,
                "image_formats": list(settings.image_formats),
            },
        )


def _finite(value: float) -> float | None:
    """JSON has neither infinity nor NaN."""
    return value if math.isfinite(value) else None
