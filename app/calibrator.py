"""Benign images → a calibration that is kept, enforced, and can be rolled back. Knows nothing of HTTP.

What is enforced changes in one order only: the new guard is built, the store has committed, and then
the firewall is switched. A process killed anywhere in between comes back with what the store says.
"""

import asyncio
import contextlib
import itertools
import logging
import time
from collections.abc import Awaitable, Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from types import EllipsisType
from typing import Any, Literal

import numpy as np
import torch

from app.artefact import ArtefactError
from app.decoding import DecodePool
from app.firewall import CalibrationContent, Firewall, Guard
from app.images import ImageError
from app.metrics import Metrics
from app.report import Skipped, calibration_report, regression_warnings, with_names
from app.storage.calibrations import CalibrationStore, Record, new_id, now
from app.storage.errors import UnknownCalibration
from app.worker import Worker
from detectors.base import CalibrationError, DetectorError, Integers
from detectors.calibration import BenignSample
from detectors.references import References
from detectors.trimming import trimmed

__all__ = [
    "BenignImage",
    "CalibrationBusy",
    "CalibrationChanged",
    "CalibrationClash",
    "CalibrationMismatch",
    "Calibrator",
    "Progress",
    "UnusableImages",
]

log = logging.getLogger("triggerwall.calibrator")

PARTS = 32  # batches kept apart: more small arrays that stay, among large ones that go, leave holes in memory

Regression = Callable[[Guard], Awaitable[dict[str, Any] | None]]
UNUSABLE = (DetectorError, ArithmeticError, LookupError, RuntimeError, TypeError, ValueError)
"""What detectors may raise when they are built from a stored fit that is damaged, or of another release."""


class CalibrationBusy(Exception):  # noqa: N818  (it names the state)
    """Raised at once where another calibration is under way."""

    retry_after = 10.0  # seconds


class CalibrationMismatch(Exception):  # noqa: N818
    """Raised where a calibration does not belong to the classifier and detectors that are served."""


class CalibrationChanged(Exception):  # noqa: N818
    """Raised where somebody else activated a calibration since the caller looked."""


class CalibrationClash(Exception):  # noqa: N818
    """Raised where another calibration is already kept under the id of an imported one."""


class UnusableImages(Exception):  # noqa: N818
    """Raised where more than half of the calibration images cannot be used; `part` names the first."""

    def __init__(self, detail: str, part: str | None) -> None:
        super().__init__(detail)
        self.part = part


@dataclass(frozen=True)
class BenignImage:
    """One encoded calibration image; `label` is its true class where that is known."""

    name: str
    label: int | None
    data: bytes


@dataclass(frozen=True)
class Progress:
    """How far the calibration under way is: `done` of `total` images measured; `total` where it is known."""

    stage: Literal["receiving", "measuring", "fitting"]
    done: int = 0
    total: int | None = None


@dataclass(frozen=True)
class _Batch:
    """Decoded images (B, C, H, W), their labels and names, and those that could not be read."""

    images: torch.Tensor | None
    labels: list[int | None]
    names: list[str]
    skipped: list[Skipped]

    def without(self, faults: Mapping[int, str]) -> "_Batch":
        """Its images are measured, but for those that `faults` gives the reasons of."""
        kept = [number for number in range(len(self.names)) if number not in faults]
        return _Batch(
            None,
            [self.labels[number] for number in kept],
            [self.names[number] for number in kept],
            [*self.skipped, *(Skipped(self.names[number], why) for number, why in faults.items())],
        )


class _SetAside:
    """The first `wanted` images of a calibration, with which detectors compare the others."""

    def __init__(self, wanted: int) -> None:
        self.wanted = wanted
        self.images: list[torch.Tensor] = []
        self.names: list[str] = []
        self.kept: References | None = None

    def __len__(self) -> int:
        return sum(len(images) for images in self.images)

    def take(self, batch: _Batch) -> _Batch:
        """Set aside what is still missing, and return the rest of `batch`."""
        missing = self.wanted - len(self)
        if batch.images is None or missing <= 0:
            return batch
        self.images.append(batch.images[:missing])
        self.names += batch.names[:missing]
        rest = batch.images[missing:]
        return _Batch(
            rest if len(rest) else None, batch.labels[missing:], batch.names[missing:], batch.skipped
        )


async def _no_regression(_: Guard) -> dict[str, Any] | None:
    return None


class Calibrator:
    """Makes calibrations, keeps them and switches between them."""

    def __init__(
        self,
        firewall: Firewall,
        worker: Worker,
        decoders: DecodePool,
        store: CalibrationStore,
        metrics: Metrics,
        batch_images: int,
        regression: Regression = _no_regression,
    ) -> None:
        """`regression` scores a new guard on images that are known to carry triggers; see `Reviewed`."""
        self._regression = regression
        self.firewall, self.worker, self.decoders = firewall, worker, decoders
        self.store, self.metrics, self.batch_images = store, metrics, batch_images
        self.active: Record | None = None  # the one enforced
        self.mismatch: str | None = None  # why the store's active calibration is not enforced
        self.progress: Progress | None = None  # of the calibration under way
        self._followed: str | None = None  # the store's active calibration, enforced or found not to fit
        self._switching = asyncio.Lock()

    @contextlib.contextmanager
    def reserved(self) -> Iterator[None]:
        """Hold the right to calibrate. Raises `CalibrationBusy` where somebody else holds it."""
        if self.progress is not None:
            raise CalibrationBusy("another calibration is under way; try again when it has finished")
        self.progress = Progress("receiving")
        try:
            yield
        finally:
            self.progress = None

    async def create(
        self,
        images: Iterable[BenignImage],
        alpha: float,
        *,
        activate: bool,
        total: int | None = None,
        contamination: float = 0.0,
    ) -> Record:
        """Calibrate at budget `alpha` on `images`, which are taken and let go batch by batch; `total` says
        how many there are, for `progress`. A share `contamination` of them may be poisoned.

        Call it within `reserved()`. Raises `UnusableImages`, `CalibrationError`, whatever `images`
        raises, and `StoreError`; what is enforced has then not changed.
        """
        self.progress = Progress("measuring", 0, total)
        sample, names, skipped = await self._measure(images)
        return await self._make(sample, skipped, alpha, activate, names=names, contamination=contamination)

    async def create_from_traffic(
        self, sample: BenignSample, alpha: float, contamination: float, *, activate: bool
    ) -> Record:
        """As `create`, on what was measured of traffic, of which a share `contamination` is left out."""
        if not len(sample):
            raise UnusableImages("nothing was learnt from traffic yet", None)
        kept = await self.worker.run(trimmed, self.firewall.detectors, sample, contamination)
        about = {"origin": "traffic", "left_out": len(sample) - len(kept)}
        return await self._make(kept, [], alpha, activate, about)

    async def _make(
        self,
        sample: BenignSample,
        skipped: list[Skipped],
        alpha: float,
        activate: bool,
        about: dict[str, Any] | None = None,
        names: Sequence[str] = (),
        contamination: float = 0.0,
    ) -> Record:
        """Calibrate on `sample`, store that with its report, to which `about` is added, and enforce it.
        `names` of all readable images, where they have any."""
        self.progress = Progress("fitting", len(sample), len(sample))
        screening = await asyncio.to_thread(self.firewall.screen, sample)
        content = await self.worker.run(self.firewall.calibrate, sample, alpha, contamination, screening)
        used = screening.without_suspects(sample)
        info, created = self.firewall.classifier.info, now()
        id = new_id(created)
        guard = await self.worker.run(self.firewall.prepare, id, content)
        engines = {watch.detector: watch.scorer.engine for watch in guard.watches}
        report = await asyncio.to_thread(calibration_report, self.firewall, used, content, skipped, engines)
        report["regression"] = await self._regression(guard)
        report["warnings"] += regression_warnings(report["regression"])
        report["contamination"] = with_names(report["contamination"], names)
        record = Record(
            id=id,
            created_at=created,
            classifier_digest=info.digest,
            model_name=info.name,
            model_version=info.version,
            alpha=alpha,
            images=content.images,
            content=content.to_json(),
            report={**report, **(about or {})},
        )
        await self._keep(record, guard, activate=activate, reason="created")
        return record

    async def adopt(self, record: Record, *, activate: bool) -> Record:
        """Keep a calibration that was made elsewhere. One that is here already stays as it is.

        It is tried on two images first, so that nothing is kept that could not judge. Raises
        `CalibrationMismatch` where it belongs to another classifier or other detector settings,
        `CalibrationClash`, and `ArtefactError` where its detectors cannot be built from it.
        """
        content = self._content(record)
        try:
            guard = await self.worker.run(self.firewall.prepare, record.id, content)
            await self.worker.run(self.firewall.rehearse, guard)
        except UNUSABLE as error:
            raise ArtefactError(f"calibration {record.id} cannot judge images: {error}") from error
        try:
            known = await asyncio.to_thread(self.store.get, record.id)
        except UnknownCalibration:
            await self._keep(record, guard, activate=activate, reason="imported")
            return record
        if known != record:
            raise CalibrationClash(f"another calibration is kept under the id {record.id}")
        return await self.activate(record.id) if activate else known

    async def _keep(self, record: Record, guard: Guard, *, activate: bool, reason: str) -> None:
        async with self._switching:
            await asyncio.to_thread(self.store.save, record, activate=activate, reason=reason)
            if activate:
                self._enforce(record, guard)

    async def activate(
        self, id: str, reason: str = "activated", *, if_active: str | EllipsisType | None = ...
    ) -> Record:
        """Enforce calibration `id` again; `if_active` is what the caller takes for active so far.

        Raises `UnknownCalibration`, `CalibrationMismatch`, and `CalibrationChanged` where another than
        `if_active` is active by now."""
        async with self._switching:
            if if_active is not ... and await asyncio.to_thread(self.store.active_id) != if_active:
                raise CalibrationChanged("another calibration has been activated meanwhile: look again")
            record = await asyncio.to_thread(self.store.get, id)
            content = self._content(record)
            guard = await self.worker.run(self.firewall.prepare, id, content)
            await asyncio.to_thread(self.store.activate, id, reason)
            self._enforce(record, guard)
        return record

    async def restore(self) -> None:
        """Enforce what the store says was active. What does not fit is never enforced: `mismatch` then
        says why, and in enforce mode nothing else is enforced in its place."""
        id = await asyncio.to_thread(self.store.active_id)
        if id is None:
            return
        record = await asyncio.to_thread(self.store.get, id)
        try:
            guard = await self.worker.run(self.firewall.prepare, id, self._content(record))
        except (CalibrationMismatch, *UNUSABLE) as error:
            told = isinstance(error, CalibrationMismatch | DetectorError)
            self.mismatch = str(error) if told else f"calibration {id} cannot be used: {error!r}"
            self.firewall.enforce(None)
            self._followed = id
            self.metrics.mismatched()
            log.error("%s", self.mismatch)
        else:
            self._enforce(record, guard)

    async def follow(self) -> None:
        """`restore`, should another gateway have changed what is active. Raises `StoreError`."""
        if await asyncio.to_thread(self.store.active_id) == self._followed:
            return
        async with self._switching:  # or this gateway is about to change it itself
            if await asyncio.to_thread(self.store.active_id) != self._followed:
                await self.restore()

    def misfit(self, record: Record) -> str | None:
        """Why `record` cannot be enforced here; None where it can."""
        try:
            self._content(record)
        except CalibrationMismatch as error:
            return str(error)
        return None

    def _content(self, record: Record) -> CalibrationContent:
        """Raises `CalibrationMismatch` where it cannot be enforced here."""
        try:
            content = CalibrationContent.from_json(record.content)
        except (KeyError, TypeError, ValueError) as error:
            raise CalibrationMismatch(f"calibration {record.id} cannot be understood") from error
        reason = self.firewall.fits(content)
        if reason is not None:
            raise CalibrationMismatch(f"calibration {record.id} cannot be enforced: {reason}")
        return content

    def _enforce(self, record: Record, guard: Guard) -> None:
        self.firewall.enforce(guard)
        self.active, self.mismatch, self._followed = record, None, record.id
        self.metrics.calibrated(record.id, record.created_at.timestamp(), record.alpha)
        engines = "; ".join(f"{watch.detector} by {watch.scorer.engine}" for watch in guard.watches)
        log.info("calibration %s is enforced: %s", record.id, engines)

    async def _measure(self, images: Iterable[BenignImage]) -> tuple[BenignSample, list[str], list[Skipped]]:
        """Decode the next batch while the device measures this one. The names are those of all readable
        images, also of those that are only set aside."""
        iterator = iter(images)
        parts: list[BenignSample] = []
        labels: list[int | None] = []
        names: list[str] = []
        skipped: list[Skipped] = []
        aside = _SetAside(self.firewall.references)
        following = asyncio.create_task(self._next(iterator))
        try:
            while batch := await following:
                following = asyncio.create_task(self._next(iterator))
                batch = aside.take(batch)
                if batch.images is not None:
                    started = time.perf_counter()
                    if aside.kept is None:
                        aside.kept = await self._keep_references(aside.images)
                    found, faults = await self.worker.run(
                        self.firewall.measure_apart, batch.images, aside.kept
                    )
                    parts += found
                    batch = batch.without(faults)
                    if len(parts) >= PARTS:
                        parts = [BenignSample.join(parts, None)]
                    self.metrics.stage("calibrate", time.perf_counter() - started)
                labels += batch.labels
                names += batch.names
                skipped += batch.skipped
                self._measured(len(labels) + len(skipped))
        finally:
            following.cancel()
        _require_usable(len(labels) + len(aside), skipped)
        if not parts:
            raise CalibrationError(
                f"{len(aside)} benign images are too few: {aside.wanted} are kept to compare others with; "
                "send more"
            )
        return BenignSample.join(parts, _known(labels)), aside.names + names, skipped

    async def _keep_references(self, images: list[torch.Tensor]) -> References:
        return await self.worker.run(self.firewall.keep, torch.cat(images)) if images else {}

    def _measured(self, done: int) -> None:
        if self.progress is not None:
            self.progress = replace(self.progress, done=done)

    async def _next(self, images: Iterator[BenignImage]) -> _Batch | None:
        """The next batch, decoded; None at the end."""
        taken = await self.decoders.run(lambda: list(itertools.islice(images, self.batch_images)))
        if not taken:
            return None
        decoded = await self.decoders.decode([image.data for image in taken])
        pixels, labels, names, skipped = [], [], [], []
        for image, outcome in zip(taken, decoded, strict=True):
            if isinstance(outcome, ImageError):
                skipped.append(Skipped(image.name, str(outcome)))
            else:
                pixels.append(outcome)
                labels.append(image.label)
                names.append(image.name)
        return _Batch(torch.from_numpy(np.stack(pixels)) if pixels else None, labels, names, skipped)


def _require_usable(count: int, skipped: list[Skipped]) -> None:
    if count == 0 and not skipped:
        raise UnusableImages("there are no images to calibrate on", None)
    if len(skipped) > count:
        first = skipped[0]
        raise UnusableImages(
            f"{len(skipped)} of {count + len(skipped)} images cannot be used; the first is {first.part!r}: "
            f"{first.detail}",
            first.part,
        )


def _known(labels: list[int | None]) -> Integers | None:
    known = [label for label in labels if label is not None]
    return np.array(known, dtype=np.int64) if len(known) == len(labels) else None
