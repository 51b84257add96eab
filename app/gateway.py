"""Everything one gateway consists of, and the path of an image through it. Knows nothing of HTTP."""

import asyncio
import logging
import math
import time
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from functools import partial

import numpy as np
import torch
from torch import Tensor

from app.admission import Admission
from app.assembly import example_batch
from app.batcher import Batcher, BatchFigures, Closed
from app.calibrator import CalibrationMismatch, Calibrator, UnusableImages
from app.callers.identity import Caller, KeyRing
from app.callers.near_duplicates import NearDuplicates, signatures
from app.callers.quota import Quota
from app.callers.told import coarse
from app.context import note, request_id
from app.decoding import DecodePool
from app.faults import FaultWatch
from app.firewall import Firewall, Inspection, NotCalibrated
from app.follower import Follower, StaleCalibration
from app.images import Decoder, ImageError, Pixels
from app.isolation import Unjudged
from app.labels import Labels
from app.lanes import divide_cores, lanes_for
from app.learner import Learner
from app.metrics import Metrics
from app.policy import Mode, decide
from app.recording import Recording
from app.recording.recorder import JudgedRequest
from app.reviewed import Reviewed
from app.settings import Settings
from app.sharing.exchange import Exchange, FleetView
from app.storage.calibrations import CalibrationStore, Record
from app.storage.database import Database
from app.storage.decisions import DecisionStore
from app.storage.quarantine import QuarantineStore
from app.storage.sketches import SketchStore
from app.suggestions import with_suggestions
from app.watch import DriftWatch
from app.worker import Worker
from detectors.calibration import images_needed
from models.errors import UpstreamError, UpstreamTimeout, UpstreamUnavailable
from models.remote import RemoteClassifier, due
from models.remote.upstream import Attempt

__all__ = ["DeviceRequest", "Gateway", "Judged", "Judgement", "OutOfOrder"]

log = logging.getLogger("triggerwall.gateway")

ANSWER_S = 0.05  # for the way from the device to the caller, before the deadline
SPARE_S = 0.1  # while more than this waits for the device, it is not asked for niceties
PATIENCE_S = 1.0  # how often to look whether the calibration under way has ended

Judged = tuple[str | None, Mode, float, list[Inspection | Unjudged]]
"""By which calibration, in which mode, when that was last confirmed (seconds of `time.monotonic`), and what
was found."""


class OutOfOrder(Exception):  # noqa: N818  (it names the state)
    """Raised where nothing can be judged any more, and only a restart helps."""


@dataclass(frozen=True)
class DeviceRequest:
    """The readable images of one request, (B, C, H, W) on the CPU; `full` asks for exact scores;
    after `deadline`, seconds of `time.monotonic`, nobody waits for them."""

    images: Tensor
    full: bool
    deadline: float = math.inf
    on_device: list[tuple[float, float]] = field(default_factory=list)  # from when to when: filled there


@dataclass(frozen=True)
class Judgement:
    """The outcome of one request: one result or error per image, in order, and who judged how."""

    calibration: str | None
    mode: Mode
    results: list[Inspection | Unjudged | ImageError]

    @property
    def unjudged(self) -> list[Unjudged]:
        return [each for each in self.results if isinstance(each, Unjudged)]

    def coarse(self) -> "Judgement":
        """The same as those may know it who are told coarse scores."""
        return replace(self, results=[_coarsely(each) for each in self.results])


def _coarsely(outcome: Inspection | Unjudged | ImageError) -> Inspection | Unjudged | ImageError:
    if not isinstance(outcome, Inspection):
        return outcome
    return replace(outcome, detections=tuple(map(coarse, outcome.detections)))


class Gateway:
    """One classifier behind its firewall, with what it needs to serve: threads, batches, store, metrics."""

    def __init__(
        self,
        settings: Settings,
        firewall: Firewall,
        elsewhere: Admission[DeviceRequest, Judged] | None = None,
        *,
        records: bool = True,
    ) -> None:
        """Opens the database; starts nothing. Raises `StoreError`.

        With `elsewhere` images are judged there and not on this process's device. What is judged here for
        somebody else who `records` it is not kept a second time.
        """
        self.settings, self.firewall, self._records = settings, firewall, records
        self.stopping = False  # told to: it answers what comes, and is not ready for more
        self.info = firewall.classifier.info
        self.labels = Labels(self.info.labels, self.info.num_classes)
        self.metrics = Metrics()
        self.keys = KeyRing(settings.admin_key, settings.caller_keys)
        self.quota = Quota(settings.rate_limit, settings.rate_burst) if settings.rate_limit else None
        self.near_duplicates = NearDuplicates(settings.near_duplicate_run, settings.near_duplicate_distance)
        self.metrics.serving(self.info, firewall.mode)
        firewall.on_stage = self.metrics.stage
        self.remote = firewall.classifier if isinstance(firewall.classifier, RemoteClassifier) else None
        self.faults = FaultWatch(self.metrics, firewall.self_test)
        self.database = _database(settings)
        self.store = CalibrationStore(self.database)
        self.decisions = DecisionStore(self.database)
        self.quarantine = QuarantineStore(self.database)
        self.recording = Recording(settings, self.decisions, self.quarantine, self.metrics)
        # What torch.compile made is not run by several threads at once.
        lanes = 1 if settings.psc_compile else lanes_for(firewall.classifier, settings.lanes)
        self.worker = Worker(lanes=lanes, prepare=partial(divide_cores, torch.get_num_threads(), lanes))
        self.decoder = self._decoder()
        self.decoders = DecodePool(
            self.decoder, settings.decode_threads, lambda seconds: self.metrics.stage("decode", seconds)
        )
        self.reviewed = Reviewed(self.quarantine, self.recording.blobs, firewall, self.worker, self.decoders)
        self.calibrator = Calibrator(
            firewall,
            self.worker,
            self.decoders,
            self.store,
            self.metrics,
            settings.calibration_batch_images,
            self.reviewed.regression,
        )
        self.watch = DriftWatch(firewall, self.metrics, settings.drift_run_length)
        self.learner = self._learner() if settings.learn_from_traffic else None
        self.exchange = self._exchange() if settings.database_url is not None and records else None
        self.follower = Follower(
            self.calibrator.follow,
            lag=settings.calibration_lag_s,
            bounded=settings.database_url is not None,
            hints=self.database.hints,
        )
        self.metrics.confirmed(lambda: self.follower.age)
        self._judges_here = elsewhere is None
        self.batcher = elsewhere or self._batcher()
        self.metrics.queue_capacity.set(settings.queue_rows)
        self.metrics.queue_rows.set_function(lambda: self.batcher.waiting)
        if self.remote is not None:
            self.remote.upstream.on_attempt = self._attempted
            self.remote.upstream.on_breaker = self.metrics.breaker

    def _batcher(self) -> Batcher[DeviceRequest, Judged]:
        settings = self.settings
        return Batcher(
            self._inspect,
            self.worker.run_beside,
            max_weight=settings.batch_rows,
            max_delay=settings.batch_delay_ms / 1000,
            max_waiting=settings.queue_rows,
            adapts=settings.batch_adapts,
            lanes=self.worker.lanes,
            observe=self._observe,
            nobodys_fault=(UpstreamUnavailable, UpstreamTimeout),
        )

    def _decoder(self) -> Decoder:
        return Decoder(
            size=self.info.size,
            channels=self.info.channels,
            interpolation=self.info.interpolation,
            formats=self.settings.image_formats,
            max_bytes=self.settings.max_image_bytes,
            max_pixels=self.settings.max_pixels,
        )

    def _observe(self, figures: BatchFigures) -> None:
        self.metrics.batch(figures.weight, figures.waited, retried=figures.retried)

    def _attempted(self, attempt: Attempt) -> None:
        self.metrics.attempt(attempt.outcome, attempt.rows, attempt.seconds)
        self.worker.alive()  # who waits for somebody else is not stuck: every attempt ends

    def _inspect(self, requests: Sequence[DeviceRequest]) -> list[Judged]:
        """Judge the images of several requests together; a request's images stay together, so one
        calibration judges them all. Runs on the device's threads. Raises `StaleCalibration`."""
        confirmed = self.follower.require_fresh()
        mode = self.firewall.mode  # it changes between batches only: see `switch`
        answers: dict[int, Judged] = {}
        for full in (False, True):
            chosen = [number for number, request in enumerate(requests) if request.full is full]
            if not chosen:
                continue
            images = torch.cat([requests[number].images for number in chosen])
            self.metrics.batch_images(len(images))
            asked_before = self.remote.queries if self.remote else 0
            latest = max(requests[number].deadline for number in chosen)
            # As long as anybody waits; who waits less long is told at their own deadline.
            began = time.perf_counter()
            with due(latest - ANSWER_S):
                calibration, outcomes = self.firewall.inspect_apart(
                    images,
                    full=full,
                    failed=self.faults.failed,
                    give_up=partial(_passed, latest),
                )
            self.faults.judged(outcomes)
            if self.remote is not None:
                self.metrics.queries((self.remote.queries - asked_before) / len(images), len(images))
            remaining = iter(outcomes)
            for number in chosen:
                requests[number].on_device.append((began, time.perf_counter()))
                found = [next(remaining) for _ in requests[number].images]
                answers[number] = (calibration, mode, confirmed, found)
        return [answers[number] for number in range(len(requests))]

    def rows_per_image(self) -> int:
        """Forward rows that one image may cost under what is enforced now."""
        return self.firewall.guard.rows if self.firewall.guard else 1

    def _learner(self) -> Learner:
        if self.firewall.references:
            raise ValueError(
                "learn_from_traffic keeps no images, and a detector needs some to compare others with: leave "
                "strip out of `detectors`, or learn_from_traffic"
            )
        alpha, images = self.settings.alpha, self.settings.learn_images
        needed = self.images_needed(alpha)
        if images * (1 - self.settings.learn_contamination) < needed:
            raise ValueError(
                f"learn_images is {images}, of which learn_contamination may be left out; the budget "
                f"alpha = {alpha:g} takes {needed}: raise learn_images, or alpha"
            )
        return Learner(
            self.firewall,
            self.worker,
            capacity=self.settings.learn_images,
            share=self.settings.learn_sample,
            busy=lambda: self.batcher.waiting > 0,
            full=self._learnt,
            elsewhere=lambda: self.exchange.learnt_elsewhere if self.exchange is not None else 0,
        )

    def _exchange(self) -> Exchange:
        """With the other gateways on the same database; who has one alone has nobody to tell."""
        store, interval = SketchStore(self.database), self.settings.sketch_interval_s
        reservoir = None if self.learner is None else self.learner.reservoir
        return Exchange(store, self.watch, reservoir, interval=interval)

    @property
    def fleet(self) -> FleetView | None:
        """What all gateways on this database see of drift together; None before the first look."""
        return None if self.exchange is None else self.exchange.fleet

    # --- life -------------------------------------------------------------------------------------

    async def start(self) -> None:
        """Restore the active calibration and warm everything up; ready when it returns."""
        await self.follower.start()
        try:
            if self._judges_here:
                await self.worker.run(self._warm_up)
        except UpstreamError as error:  # it may come up after us
            log.warning("the remote classifier could not be tried: %s", error)
        self.batcher.start()
        if self.learner is not None:
            self.learner.start()
        if self.exchange is not None:
            self.exchange.start()
        if self._records:
            self.recording.start()
        reason = self.not_ready()
        log.log(
            logging.WARNING if reason else logging.INFO,
            "%s %s on %s, %s mode: %s",
            *(self.info.name, self.info.version, self.firewall.device, self.firewall.mode),
            reason or "ready",
        )

    def _warm_up(self) -> None:
        if self.remote is not None:
            self.remote.logits(example_batch(self.remote, 1))  # there is nothing to warm, and queries cost
            return
        for images in {1, max(1, self.settings.batch_rows // self.rows_per_image())}:
            example = example_batch(self.firewall.classifier, images)
            self.firewall.classifier.logits(example)
            if self.firewall.guard is not None:
                self.firewall.inspect(example.cpu())

    async def close(self) -> None:
        """Answer everything that was accepted, then end threads and store."""
        await self.batcher.close()
        await self.follower.close()
        if self.exchange is not None:
            await self.exchange.close()
        if self.learner is not None:
            await self.learner.close()
        await asyncio.to_thread(self.worker.close)
        if self.remote is not None:
            await asyncio.to_thread(self.remote.close)
        await asyncio.to_thread(self.decoders.close)
        if self._records:
            await asyncio.to_thread(self.recording.close)
        self.database.close()

    # --- liveness and readiness ---------------------------------------------------------------------

    def not_alive(self) -> str | None:
        """None, or the sentence that says why only a restart helps."""
        return self._stuck() or self.faults.broken

    def _stuck(self) -> str | None:
        busy = self.worker.busy_for()
        if busy <= self.settings.stuck_after_s:
            return None
        return f"a call to {self.firewall.classifier.device} has not returned for {busy:.0f} s"

    def not_ready(self) -> str | None:
        """None where traffic may come, else the sentence that says what the operator has to do."""
        try:
            self.require_ready()
        except (NotCalibrated, CalibrationMismatch, StaleCalibration, OutOfOrder, Closed) as error:
            return str(error)
        return None

    def require_alive(self) -> None:
        """Raise `OutOfOrder` where only a restart helps."""
        reason = self.not_alive()
        if reason is not None:
            raise OutOfOrder(reason)

    def require_ready(self) -> None:
        """Raise `Closed` after the order to stop, and what `require_alive` and `require_judge` raise."""
        if self.stopping:
            raise Closed("the gateway is about to stop: send new requests elsewhere")
        self.require_alive()
        self.require_judge()

    def require_judge(self) -> None:
        """Raise `OutOfOrder` where the device does not return; in enforce mode, raise `CalibrationMismatch`
        or `NotCalibrated` where nothing can be enforced.

        Monitor mode withholds nothing, so it lets traffic pass then. In either, raise `StaleCalibration`.
        """
        stuck = self._stuck()
        if stuck is not None:
            raise OutOfOrder(stuck)
        self.follower.require_fresh()
        if self.firewall.guard is not None or self.firewall.mode is Mode.MONITOR:
            return
        send = (
            f"POST at least {self.images_needed(self.settings.alpha)} benign images to /calibrate, as "
            "multipart parts named `images` with optional `labels`, or as one zip named `archive` with a "
            "folder per class"
        )
        if self.calibrator.mismatch is not None:
            raise CalibrationMismatch(f"{self.calibrator.mismatch}; activate one that fits, or {send}")
        raise NotCalibrated(f"no calibration is active: {send}")

    def images_needed(self, alpha: float) -> int:
        """The fewest benign images that support the budget `alpha`, split among the detectors, with those
        that are only kept to compare others with."""
        return images_needed(alpha / len(self.firewall.detectors)) + self.firewall.references

    def p_limits(self, alpha: float) -> dict[str, float]:
        """The p-value up to which each detector would reject at budget `alpha`, split as the calibration
        enforced splits its own; evenly where none is."""
        watches = self.firewall.guard.watches if self.firewall.guard else ()
        parts = {each.detector: each.calibration for each in watches if each.calibration is not None}
        whole = self.calibrator.active.alpha if self.calibrator.active else None
        if not parts or whole is None:
            return {each.name: alpha / len(self.firewall.detectors) for each in self.firewall.detectors}
        return {name: alpha * part.alpha / whole for name, part in parts.items()}

    # --- from monitoring to enforcing -----------------------------------------------------------------

    async def switch(self, mode: Mode) -> None:
        """From the next batch on, `enforce` or `monitor`. Raises `NotCalibrated` where there is nothing to
        enforce; the mode has then not changed."""
        if mode is Mode.ENFORCE and self.firewall.guard is None:
            raise NotCalibrated("there is nothing to enforce yet: calibrate first, or activate a calibration")
        await self.worker.run(self.firewall.switch, mode)
        self.metrics.serving(self.info, mode)
        log.warning("the mode is now %s", mode)

    async def learn(self, alpha: float, contamination: float, *, activate: bool) -> Record:
        """Calibrate on what was learnt from traffic; call it within `calibrator.reserved()`."""
        if self.learner is None:
            raise UnusableImages("this gateway does not learn from its traffic", None)
        sample = self.learner.reservoir.sample() if self.exchange is None else await self.exchange.learnt()
        return await self.calibrator.create_from_traffic(sample, alpha, contamination, activate=activate)

    async def _learnt(self) -> None:
        """Enough traffic was measured: go on by the setting, or leave it to the operator."""
        settings = self.settings
        log.info("%d images of traffic are measured: they suffice to calibrate on", settings.learn_images)
        if settings.enforce_after_learning:
            while self.calibrator.progress is not None:  # somebody's own calibration: it is soon done
                await asyncio.sleep(PATIENCE_S)
            if not self._learnt_by_another():
                with self.calibrator.reserved():
                    await self.learn(settings.alpha, settings.learn_contamination, activate=True)
            await self.switch(Mode.ENFORCE)

    def _learnt_by_another(self) -> bool:
        """Did another gateway calibrate on the traffic of all since this one began to learn?"""
        active = self.calibrator.active
        return (
            self.exchange is not None
            and active is not None
            and active.report.get("origin") == "traffic"
            and active.created_at > self.exchange.began
        )

    # --- the path of an image ---------------------------------------------------------------------

    def tells_exactly(self, caller: Caller) -> bool:
        """May `caller` know exact scores and p-values?"""
        return caller.admin or self.settings.open_scores

    def charge(self, caller: Caller, images: int = 1, *, more: bool = False) -> None:
        """Take `images` from the caller's quota: one before a request is read, `more` once it is known how
        many it holds. Raises `RateLimited`, but not for more."""
        if self.quota is not None and not caller.unlimited:
            (self.quota.charge_more if more else self.quota.charge)(caller.name, images)

    def _look_for_runs(self, caller: Caller, images: Pixels) -> None:
        if not self.settings.near_duplicate_run:
            return
        near, begins = self.near_duplicates.observe(caller.name, signatures(images))
        self.metrics.near_duplicates(near, run=begins)
        if begins:
            log.warning(
                "a run of near-duplicate images from %s: somebody may be searching for one that passes",
                caller.name,
            )

    async def classify(
        self,
        images: Sequence[bytes | Pixels | ImageError],
        *,
        full: bool,
        caller: Caller,
        deadline: float,
        suggest: bool = False,
    ) -> Judgement:
        """Judge the `images` of one request, encoded or as the classifier's own pixels; what could not even
        be received stays an error. `suggest` the most likely true labels of suspicious ones.

        Requests of one `caller` queue up behind each other. Raises `OutOfOrder`, `NotCalibrated`,
        `CalibrationMismatch`, `StaleCalibration`, `Overloaded`, `Closed`, and `DeadlineExceeded` at
        `deadline`, seconds of `time.monotonic`.
        """
        self.require_judge()
        rows = self.rows_per_image()
        guard = self.firewall.guard
        calibration: str | None = guard.id if guard else None
        mode = self.firewall.mode
        outcomes: list[Inspection | Unjudged] = []
        request: DeviceRequest | None = None
        # Before decoding: what cannot be judged in time should not cost anything.
        with self.batcher.admit(len(images) * rows, deadline) as ticket:
            self.metrics.images(len(images))
            received = time.perf_counter()
            decoded = await self.decoders.decode(images, deadline)
            note("decode", received)
            readable = [each for each in decoded if not isinstance(each, ImageError)]
            if readable:
                pixels = np.stack(readable)
                self._look_for_runs(caller, pixels)
                queued = time.perf_counter()
                request = DeviceRequest(torch.from_numpy(pixels), full, deadline)
                calibration, mode, confirmed, outcomes = await ticket.submit(
                    request, len(readable) * rows, flow=caller.name, deadline=deadline
                )
                self._require_still_fresh(calibration, confirmed)
                for began, ended in request.on_device[-1:]:  # the last try, where a batch was tried again
                    note("queue", queued, began)
                    note("device", began, ended)
                outcomes = [self._settled(each) for each in outcomes]
                self.watch.observe(calibration, [each for each in outcomes if isinstance(each, Inspection)])
                if self.learner is not None:
                    self.learner.offer(request.images)
        self._record(images, decoded, outcomes, calibration, mode)
        self._count(outcomes, mode)
        spare = self.remote is None and self.batcher.expected_wait() < SPARE_S  # questions cost elsewhere
        if suggest and spare and request is not None:
            classifier, until = self.firewall.classifier, deadline - ANSWER_S
            outcomes = await with_suggestions(self.worker, classifier, request.images, outcomes, until)
        remaining = iter(outcomes)
        results = [each if isinstance(each, ImageError) else next(remaining) for each in decoded]
        return Judgement(calibration, mode, results)

    def _require_still_fresh(self, calibration: str | None, confirmed: float) -> None:
        """Judging takes its time: raise `StaleCalibration` where the answer would come too late for what
        judged it, last confirmed at `confirmed`."""
        guard = self.firewall.guard
        if calibration == (guard.id if guard else None):
            self.follower.require_fresh()
        else:
            self.follower.require_recent(confirmed)

    def _settled(self, outcome: Inspection | Unjudged) -> Inspection | Unjudged:
        """A score that is not a number is suspicious already; by setting it counts as a failure instead."""
        if self.settings.on_detector_failure == "reject":
            return outcome
        if isinstance(outcome, Unjudged) or outcome.is_number:
            return outcome
        self.metrics.unjudged("not-a-number")
        return Unjudged("not-a-number")

    def _count(self, outcomes: Sequence[Inspection | Unjudged], mode: Mode) -> None:
        for each in outcomes:
            if isinstance(each, Inspection):
                self.metrics.judged(each.verdict, each.detections)
            elif self.settings.on_detector_failure == "reject":
                self.metrics.judged(decide([], mode), ())

    def _record(
        self,
        images: Sequence[bytes | Pixels | ImageError],
        decoded: Sequence[Pixels | ImageError],
        outcomes: Sequence[Inspection | Unjudged],
        calibration: str | None,
        mode: Mode,
    ) -> None:
        """Keep the decisions. An image that could not be judged has none."""
        readable = [place for place, each in enumerate(decoded) if not isinstance(each, ImageError)]
        judged = [
            (place, image, each)
            for place, each in zip(readable, outcomes, strict=True)
            if isinstance(each, Inspection) and not isinstance(image := images[place], ImageError)
        ]
        if judged:
            places, came, inspections = map(list, zip(*judged, strict=True))
            self.recording.record(
                JudgedRequest(time.time(), request_id.get(), calibration, mode, places, came, inspections)
            )


def _passed(deadline: float) -> bool:
    return time.monotonic() >= deadline


def _database(settings: Settings) -> Database:
    url = settings.database_url
    return Database(settings.data_dir, url.get_secret_value() if url is not None else None)
