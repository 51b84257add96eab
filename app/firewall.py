"""Images → predictions and scores → verdicts. Knows nothing of HTTP, settings or storage.

Blocking, and meant for the threads that own the device: several may `inspect` at once, where the classifier
can; all else is done alone. What it enforces is swapped whole, so a batch is judged by one calibration from
its first image to its last.
"""

import logging
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, Literal

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from app.draws import draws, new_secret
from app.isolation import Unjudged, isolate
from app.policy import Detection, Mode, Verdict, decide, is_suspicious
from app.stopwatch import Stopwatch
from detectors.base import BasePass, CalibrationError, Detector, DetectorError, Floats, Scorer
from detectors.budget import share_budget
from detectors.calibration import BenignSample, Conditioning, DetectorCalibration, Ties
from detectors.contamination import Screening, screen
from detectors.profile import Profile
from detectors.references import References, keep_references, references_wanted, with_references
from models.base import Classifier
from models.errors import UpstreamError
from models.torch_module import TorchClassifier

__all__ = [
    "CalibrationContent",
    "Firewall",
    "Guard",
    "Inspection",
    "Measured",
    "NotCalibrated",
    "Suggested",
    "ThresholdKind",
]

log = logging.getLogger("triggerwall.firewall")

ThresholdKind = Literal["conformal", "fixed"]
Suspects = Literal["remove", "report"]
Measured = tuple[list[BenignSample], dict[int, str]]
"""Samples of those images of a batch that could be measured, in order; by number, why others could not."""


class NotCalibrated(Exception):  # noqa: N818  (it names the state the gateway is in)
    """Raised when images are to be judged in enforce mode and nothing is there to judge them by."""


@dataclass(frozen=True)
class Suggested:
    """The most likely true label of a suspicious image, and the mean probability that the classifier gives it
    under changes that disarm many triggers."""

    label: int
    share: float


@dataclass(frozen=True)
class Inspection:
    """The outcome for one image. `label` and `probabilities` (K,) are the classifier's, whether or not they
    may leave; None where it gives labels only. `suggested` is there where it was asked for."""

    label: int
    confidence: float | None
    verdict: Verdict
    detections: tuple[Detection, ...]
    probabilities: npt.NDArray[np.float32] | None = field(default=None, compare=False, repr=False)
    suggested: Suggested | None = None

    @property
    def suspicious(self) -> bool:
        """True where a detector said so; what none has looked at is not accepted either, yet unsuspected."""
        return any(found.suspicious for found in self.detections)

    @property
    def is_number(self) -> bool:
        """False where the classifier's confidence or a detector's score is not a number."""
        scores = [found.score for found in self.detections]
        return not any(math.isnan(value) for value in [self.confidence or 0.0, *scores])


@dataclass(frozen=True)
class CalibrationContent:
    """What was learnt from benign images: everything that is needed to enforce it again after a restart.

    `images` were used; `screening` (JSON) says which others were left out, and why. `secret` decides who is
    lucky under randomised ties; None where they are conservative.
    """

    classifier_digest: str
    alpha: float
    images: int
    labelled: bool
    conditioning: Conditioning
    parts: tuple[DetectorCalibration, ...]
    secret: str | None = None
    screening: Mapping[str, Any] | None = None

    def to_json(self) -> dict[str, Any]:
        return {
            "classifier_digest": self.classifier_digest,
            "alpha": self.alpha,
            "images": self.images,
            "labelled": self.labelled,
            "conditioning": self.conditioning,
            "detectors": [part.to_json() for part in self.parts],
            "secret": self.secret,
            "screening": None if self.screening is None else dict(self.screening),
        }

    @classmethod
    def from_json(cls, content: dict[str, Any]) -> "CalibrationContent":
        parts = tuple(DetectorCalibration.from_json(part) for part in content["detectors"])
        return cls(
            content["classifier_digest"],
            content["alpha"],
            content["images"],
            content["labelled"],
            content["conditioning"],
            parts,
            content.get("secret"),
            content.get("screening"),
        )


@dataclass(frozen=True)
class Watch:
    """One detector at its post: resident on the device, with its threshold for every label."""

    detector: str
    scorer: Scorer
    thresholds: Tensor  # (K,) float64 on the classifier's device
    limits: Floats  # the same, on the host
    ties: Tensor  # (K,) float64: which share of the scores exactly there is suspicious too
    shares: Floats  # the same, on the host
    calibration: DetectorCalibration | None

    def thresholds_for(self, labels: Tensor, draws: Tensor) -> Tensor:
        """(B,) thresholds for images predicted as `labels` (B,) whose numbers are `draws` (B,).

        A tie is settled before there is a score: the unlucky image's threshold is the next number below,
        so that `score > threshold` and every early exit mean what they always do.
        """
        thresholds = self.thresholds[labels]
        below = torch.nextafter(thresholds, torch.full_like(thresholds, -math.inf))
        return torch.where(draws < self.ties[labels], below, thresholds)


@dataclass(frozen=True)
class Guard:
    """Everything that one calibration enforces. `id` is None under data-free fixed thresholds, `secret`
    where no tie is settled by lot."""

    id: str | None
    watches: tuple[Watch, ...]
    secret: str | None = None

    @property
    def rows(self) -> int:
        """Forward rows that one image may cost at most: itself, and every copy that is looked at."""
        return 1 + sum(len(stage) for watch in self.watches for stage in watch.scorer.stages)


class Firewall:
    """A classifier, the detectors that guard it, and what they enforce at the moment."""

    def __init__(
        self,
        classifier: Classifier,
        detectors: Sequence[Detector],
        *,
        mode: Mode = Mode.ENFORCE,
        thresholds: ThresholdKind = "conformal",
        conditioning: Conditioning = "class",
        ties: Ties = "conservative",
        suspects: Suspects = "remove",
        fail_open: bool = False,
    ) -> None:
        """`detectors` all have to clear an image. With `fixed` thresholds the papers' own T decide, and
        detectors that need no benign images work before any calibration. `on_stage` may be set to be told
        the seconds that each batch took to `predict` and to `detect`. With `fail_open` images that a
        remote classifier labelled, and then answered no more questions about, are let `uninspected`."""
        self.classifier = classifier
        self.detectors = tuple(detectors)
        self.mode = mode
        self.thresholds: ThresholdKind = thresholds
        self.conditioning: Conditioning = conditioning
        self.ties: Ties = ties
        self.suspects: Suspects = suspects
        self.fail_open = fail_open
        self.guard: Guard | None = self._data_free_guard() if thresholds == "fixed" else None
        self.on_stage: Callable[[str, float], None] = lambda _stage, _seconds: None

    @property
    def device(self) -> str:
        """Where images are judged."""
        return str(self.classifier.device)

    @property
    def engine(self) -> str | None:
        """What computes the predictions; None where it is not PyTorch in this process."""
        return self.classifier.engine if isinstance(self.classifier, TorchClassifier) else None

    # --- what is enforced -------------------------------------------------------------------------

    def fits(self, content: CalibrationContent) -> str | None:
        """None where `content` can be enforced here, else the sentence that says why not."""
        if content.classifier_digest != self.classifier.info.digest:
            return (
                f"it was made for another classifier (digest {content.classifier_digest[:12]}, "
                f"serving {self.classifier.info.digest[:12]})"
            )
        made = {part.detector: dict(part.settings) for part in content.parts}
        wanted = {detector.name: detector.settings() for detector in self.detectors}
        if made != wanted:
            return f"it was made for other detector settings ({made}, configured {wanted})"
        return None

    def prepare(self, id: str, content: CalibrationContent) -> Guard:
        """Build the resident networks and thresholds of `content`. Slow; changes nothing yet.

        Raises `CalibrationError` where it does not fit this classifier and these detectors.
        """
        reason = self.fits(content)
        if reason is not None:
            raise CalibrationError(f"calibration {id} cannot be enforced: {reason}")
        parts = {part.detector: part for part in content.parts}
        return Guard(id, tuple(self._watch(d, parts[d.name]) for d in self.detectors), content.secret)

    def enforce(self, guard: Guard | None) -> None:
        """From the next batch on, judge by `guard`."""
        self.guard = guard

    def switch(self, mode: Mode) -> None:
        """From the next batch on, enforce or monitor."""
        self.mode = mode

    def _watch(self, detector: Detector, part: DetectorCalibration) -> Watch:
        classes = self.classifier.num_classes
        fixed = self.thresholds == "fixed"
        values = detector.fixed_thresholds(part.fit) if fixed else part.thresholds(classes)
        ties = np.zeros(classes) if fixed else part.tie_probabilities(classes)
        scorer = detector.scorer(part.fit, part.stages)
        limits, shares = self._on_device(values), self._on_device(ties)
        return Watch(detector.name, scorer, limits, values, shares, ties, part)

    def _data_free_guard(self) -> Guard | None:
        watches = []
        for detector in self.detectors:
            fit = detector.data_free_fit()
            if fit is None:
                log.warning(
                    "%s does not watch before the first calibration: it needs benign images", detector.name
                )
                continue
            values = detector.fixed_thresholds(fit)
            scorer, limits, ties = detector.scorer(fit), self._on_device(values), np.zeros(len(values))
            watches.append(Watch(detector.name, scorer, limits, values, self._on_device(ties), ties, None))
        return Guard(None, tuple(watches)) if watches else None

    def _on_device(self, values: np.ndarray[Any, Any]) -> Tensor:
        return torch.from_numpy(values).to(self.classifier.device)

    # --- judging ----------------------------------------------------------------------------------

    @torch.inference_mode()
    def inspect(self, images: Tensor, *, full: bool = False) -> tuple[str | None, list[Inspection]]:
        """Judge `images` (B, C, H, W), float32 in [0, 1], from the CPU.

        Returns the id of the calibration that judged, and one `Inspection` per image. With `full` every
        score is exact; otherwise a detector stops as soon as its verdict is certain. Raises
        `NotCalibrated` in enforce mode when there is nothing to judge by, and whatever the classifier or a
        detector raises.
        """
        guard = self._required_guard()
        return (guard.id if guard else None), self._judge(images, guard, full, self.fail_open)

    @torch.inference_mode()
    def inspect_apart(
        self,
        images: Tensor,
        *,
        full: bool = False,
        failed: Callable[[BaseException, int], None],
        give_up: Callable[[], bool],
    ) -> tuple[str | None, list[Inspection | Unjudged]]:
        """As `inspect`, but where an image makes the classifier or a detector fail, the others are judged all
        the same, by the same calibration. `failed` and `give_up`: see `isolate`. Raises `UpstreamError`
        all the same: a remote classifier that is not there is no image's fault, and is not asked again."""
        guard = self._required_guard()
        outcomes = isolate(
            lambda part: self._judge(part, guard, full, self.fail_open),
            images,
            failed=failed,
            give_up=give_up,
            shared=(UpstreamError,),
        )
        return (guard.id if guard else None), outcomes

    def _required_guard(self) -> Guard | None:
        if self.guard is None and self.mode is Mode.ENFORCE:
            raise NotCalibrated("no calibration is active")
        return self.guard

    @torch.inference_mode()
    def self_test(self) -> None:
        """Judge two grey images by what is enforced now: what it raises is no fault of anybody's image."""
        self._judge(self._grey_images(), self.guard, full=True)

    def _grey_images(self) -> Tensor:
        info = self.classifier.info
        return torch.full((2, info.channels, *info.size), 0.5)

    @torch.inference_mode()
    def rehearse(self, guard: Guard) -> None:
        """Judge two grey images by `guard`, which need not be enforced: whatever its detectors would raise
        on traffic is raised here. Raises `CalibrationError` where a detector's stages leave terms out."""
        images = self._grey_images()
        self._judge(images, guard, full=False)
        for inspection in self._judge(images, guard, full=True):
            for found in inspection.detections:
                if not found.exact:
                    raise CalibrationError(f"the stages of {found.detector} do not evaluate all of its terms")

    @torch.inference_mode()
    def judge(self, guard: Guard, images: Tensor) -> list[Inspection]:
        """Judge `images` (B, C, H, W), float32 in [0, 1], by `guard`, which need not be enforced; exactly."""
        return self._judge(images, guard, full=True)

    def _judge(
        self, images: Tensor, guard: Guard | None, full: bool, fail_open: bool = False
    ) -> list[Inspection]:
        watches = guard.watches if guard else ()
        stopwatch = Stopwatch(self.classifier.device)
        base = self._base_pass(self._to_device(images), watches)
        stopwatch.mark("predict")
        lots = self._draws(images, guard)
        probabilities = base.logits.softmax(1)
        confidence = probabilities.gather(1, base.labels[:, None]).squeeze(1)
        # argmax of a row that is not a number is label 0, and it agrees with itself: such a row has no score.
        lost = confidence.isnan()
        results = self._scores(base, watches, lots, lost, full, fail_open)
        failed_open = len(results) < len(watches)
        # One transfer for the figures: label, confidence, number, then score, threshold and exactness per
        # detector.
        firsts = [base.labels.double(), confidence.double(), lots]
        columns = [*firsts, *[column for result in results for column in result]]
        table = torch.stack(columns, dim=1).cpu().numpy()
        answers = probabilities.cpu().numpy()
        stopwatch.mark("detect")
        for stage, seconds in stopwatch.seconds().items():
            self.on_stage(stage, seconds)
        return [
            self._inspection(row.tolist(), watches[: len(results)], answer, failed_open)
            for row, answer in zip(table, answers, strict=True)
        ]

    def _to_device(self, images: Tensor) -> Tensor:
        device = self.classifier.device
        if device.type == "cuda":
            return images.pin_memory().to(device, non_blocking=True)
        return images.to(device)

    def _base_pass(self, images: Tensor, watches: Sequence[Watch]) -> BasePass:
        """The plain prediction, made by the scorer that can save most on the way."""
        for watch in watches:
            base = watch.scorer.base(images)
            if base is not None:
                return base
        return BasePass.of(images, self.classifier.logits(images))

    def _draws(self, images: Tensor, guard: Guard | None) -> Tensor:
        """(B,) each image's own number in [0, 1); zeros where no tie is settled by lot."""
        if guard is None or guard.secret is None:
            return torch.zeros(len(images), dtype=torch.float64, device=self.classifier.device)
        return draws(images, guard.secret).to(self.classifier.device)

    def _scores(
        self,
        base: BasePass,
        watches: Sequence[Watch],
        lots: Tensor,
        lost: Tensor,
        full: bool,
        fail_open: bool,
    ) -> list[tuple[Tensor, Tensor, Tensor]]:
        """One result per watch; fewer where a remote classifier failed and that is allowed."""
        results: list[tuple[Tensor, Tensor, Tensor]] = []
        try:
            for watch in watches:
                results.append(self._score(base, watch, lots, lost, full))  # noqa: PERF401  (what came before counts)
        except UpstreamError as error:
            if not fail_open:
                raise
            log.warning("%d images are answered uninspected: %s", len(base.images), error)
        return results

    @staticmethod
    def _score(
        base: BasePass, watch: Watch, lots: Tensor, lost: Tensor, full: bool
    ) -> tuple[Tensor, Tensor, Tensor]:
        thresholds = watch.thresholds_for(base.labels, lots)
        scores = watch.scorer.score(base, None if full else thresholds)
        return scores.values.masked_fill(lost, math.nan), thresholds, scores.exact.double()

    def _inspection(
        self,
        row: Sequence[float],
        watches: Sequence[Watch],
        probabilities: npt.NDArray[np.float32],
        failed_open: bool,
    ) -> Inspection:
        label, confidence, draw = int(row[0]), row[1], row[2]
        detections = []
        for number, watch in enumerate(watches):
            score, threshold, exact = row[3 + 3 * number : 6 + 3 * number]
            p_value = watch.calibration.p_value(label, score, draw) if watch.calibration else None
            detections.append(
                Detection(
                    watch.detector, score, threshold, p_value, is_suspicious(score, threshold), bool(exact)
                )
            )
        known = self.classifier.info.access != "labels"
        return Inspection(
            label,
            confidence if known else None,
            decide(detections, self.mode, failed_open=failed_open),
            tuple(detections),
            probabilities if known else None,
        )

    # --- learning ---------------------------------------------------------------------------------

    @property
    def references(self) -> int:
        """How many benign images the detectors keep to compare others with; these are not measured."""
        return references_wanted(self.detectors)

    def keep(self, images: Tensor) -> References:
        """What the detectors keep of the first benign images of a calibration, `references` of them or
        more, (R, C, H, W) float32 in [0, 1]. Raises `CalibrationError`."""
        return keep_references(self.detectors, images)

    @torch.inference_mode()
    def measure(self, images: Tensor, references: References | None = None) -> BenignSample:
        """Measure one batch of benign images (B, C, H, W), float32 in [0, 1], for every detector.

        Detectors that compare images need `references`, what `keep` gave for this calibration. Keeps no
        other image; `BenignSample.join` puts the batches of a calibration together.
        """
        on_device = self._to_device(images)
        predicted = self.classifier.logits(on_device).argmax(1).cpu().numpy()
        detectors = [with_references(each, references or {}) for each in self.detectors]
        evidence = {each.name: each.measure(on_device).double().cpu().numpy() for each in detectors}
        return BenignSample(predicted, None, evidence, references or {})

    def measure_apart(self, images: Tensor, references: References | None = None) -> Measured:
        """As `measure`, but images at which the classifier or a detector fails are left out. Raises
        `CalibrationError` where that is more than half of several, and `UpstreamError`."""
        faults: list[str] = []

        def failed(error: BaseException, count: int) -> None:
            if count == 1:  # the single images come up in order
                faults.append(f"{type(error).__name__}: {(str(error).splitlines() or [''])[0][:200]}")
            if len(faults) > max(1, len(images) // 2):  # no use in trying every other one
                raise CalibrationError(
                    f"over half of {len(images)} images could not be measured; the first: {faults[0]}"
                )

        outcomes = isolate(
            lambda part: [self.measure(part, references)] * len(part),
            images,
            failed=failed,
            shared=(UpstreamError, DetectorError),
        )
        bad = [number for number, found in enumerate(outcomes) if isinstance(found, Unjudged)]
        samples = {id(found): found for found in outcomes if not isinstance(found, Unjudged)}
        return list(samples.values()), dict(zip(bad, faults, strict=True))

    def screen(self, sample: BenignSample) -> Screening:
        """Look for images in a benign sample that carry the trigger themselves."""
        found = screen(sample.evidence.get(Profile.name), sample.predicted, sample.labels)
        return replace(found, left_out=self.suspects == "remove" and len(found.suspects) > 0)

    def calibrate(
        self,
        sample: BenignSample,
        alpha: float,
        contamination: float = 0.0,
        screening: Screening | None = None,
    ) -> CalibrationContent:
        """Fit and calibrate every detector on `sample` so that together they reject at most a share
        `alpha` of benign images. Raises `CalibrationError`.

        Images that very likely carry a trigger are left out first, as `screening` or else `screen` says. A
        share `contamination` of each label's others may be poisoned too, at the price that
        `detectors.conformal.without_highest` states.
        """
        screening = screening or self.screen(sample)
        used = screening.without_suspects(sample)
        detectors = [with_references(each, sample.references) for each in self.detectors]
        try:
            parts = share_budget(detectors, used, alpha, self.conditioning, self.ties, contamination)
        except CalibrationError as error:
            left_out = " ".join(screening.sentences()) if len(used) < len(sample) else ""
            raise CalibrationError(f"{error}. {left_out}" if left_out else str(error)) from error
        return CalibrationContent(
            self.classifier.info.digest,
            alpha,
            len(used),
            used.labels is not None,
            self.conditioning,
            tuple(parts.values()),
            new_secret() if self.ties == "randomised" else None,
            screening.to_json(before=self.references),
        )
