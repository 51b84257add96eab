"""Tells the other gateways on the same database what this one knows of traffic, and takes what they know.

Each writes its own latest sketch and reads those of the others; nobody is in charge, and whoever is asked
merges. Sums and evidence travel, never images. What fails is logged and tried again at the next turn: a
gateway without the database still watches and learns by itself.
"""

import asyncio
import contextlib
import hashlib
import json
import logging
import secrets
from collections.abc import Mapping
from dataclasses import dataclass

from app.sharing.codec import SketchError, kept_from, pack, pack_kept, unpack
from app.storage.calibrations import now
from app.storage.errors import StoreError
from app.storage.sketches import SketchStore
from app.watch import MEANING, DriftWatch
from detectors.base import InputError
from detectors.calibration import BenignSample
from detectors.drift import DriftMonitor, State, TopLabel
from detectors.fleet import FleetMonitor
from detectors.reservoir import Kept, Reservoir, merged
from detectors.tally import Tally

__all__ = ["Exchange", "FleetView"]

log = logging.getLogger("triggerwall.sharing")

DRIFT, LEARNING = "drift", "learning"


@dataclass(frozen=True)
class FleetView:
    """What all gateways together saw at the last look; see `DriftMonitor`."""

    state: State
    gateways: int
    images: int
    alarms: int
    alarmed_by: str | None
    evidence: Mapping[str, float]
    top_label: TopLabel | None

    @classmethod
    def of(cls, fleet: FleetMonitor) -> "FleetView":
        seen = fleet.monitor
        return cls(
            seen.state, fleet.replicas, seen.images, seen.alarms, seen.alarmed_by, seen.statistics(),
            seen.top_label(),
        )  # fmt: skip


class Exchange:
    """One gateway's part in it."""

    def __init__(
        self, store: SketchStore, watch: DriftWatch, reservoir: Reservoir | None, *, interval: float
    ) -> None:
        """`reservoir`: what was learnt of traffic, where anything is; `interval` between turns in seconds."""
        self._store, self._watch, self._reservoir, self._interval = store, watch, reservoir, interval
        self.replica = secrets.token_hex(8)  # another one after a restart: then it begins anew
        self.began = now()
        self.fleet: FleetView | None = None
        self.learnt_elsewhere = 0
        self._followed: tuple[str, FleetMonitor] | None = None  # by what calibration
        self._told = 0  # images in what was written of the reservoir
        self._failing = False
        self._task: asyncio.Task[None] | None = None

    def start(self) -> None:
        """Begin; needs a running event loop."""
        self._task = asyncio.get_running_loop().create_task(self._serve(), name="exchange")

    async def close(self) -> None:
        if self._task is not None:
            self._task.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await self._task

    async def _serve(self) -> None:
        while True:
            await self.turn()
            await asyncio.sleep(self._interval)

    async def turn(self) -> None:
        """Write what this gateway knows, and look at what all know. What raises is logged."""
        try:
            await self._share_learning()
            await self._share_drift()
        except StoreError as error:
            if not self._failing:  # once, not with every turn
                log.error("the other gateways cannot be told of traffic: %s", error)
            self._failing = True
        except Exception:
            log.exception("what gateways know of traffic could not be shared")
        else:
            self._failing = False

    # --- learning ---------------------------------------------------------------------------------

    async def learnt(self) -> BenignSample:
        """A uniform sample of the traffic that all gateways have measured: of this one as it is now, of the
        others as they told last. Raises `StoreError`."""
        assert self._reservoir is not None
        ours = self._reservoir.kept()
        found = await asyncio.to_thread(self._store.get, LEARNING, self._learning_subject())
        return await asyncio.to_thread(self._merge, ours, found)

    def _merge(self, ours: Kept, found: Mapping[str, bytes]) -> BenignSample:
        assert self._reservoir is not None
        parts = [ours]
        for replica, content in found.items():
            if replica != self.replica:
                try:
                    parts.append(kept_from(content))
                except SketchError as error:
                    log.warning("what gateway %s learnt is left out: %s", replica, error)
        if not any(part.seen for part in parts):
            return ours.sample
        return merged(parts, self._reservoir.capacity, secrets.randbits(64)).sample

    async def _share_learning(self) -> None:
        if self._reservoir is None:
            return
        kept, subject = self._reservoir.kept(), self._learning_subject()
        if kept.seen > self._told:
            content = await asyncio.to_thread(pack_kept, kept)
            await asyncio.to_thread(self._store.put, self.replica, LEARNING, subject, kept.seen, content)
            self._told = kept.seen
        counts = await asyncio.to_thread(self._store.images, LEARNING, subject)
        self.learnt_elsewhere = sum(count for replica, count in counts.items() if replica != self.replica)

    def _learning_subject(self) -> str:
        """Evidence of the same classifier and detector settings can be merged."""
        firewall = self._watch.firewall
        about = {detector.name: dict(detector.settings()) for detector in firewall.detectors}
        said = json.dumps([firewall.classifier.info.digest, about], sort_keys=True, default=str)
        return hashlib.sha256(said.encode()).hexdigest()

    # --- drift ------------------------------------------------------------------------------------

    async def _share_drift(self) -> None:
        monitor, guard = self._watch.monitor, self._watch.guard
        if monitor is None or guard is None or guard.id is None:
            self.fleet = self._followed = None
            return
        subject = f"{guard.id} {self._watch.firewall.thresholds}"
        images, arrays = monitor.tally.images, monitor.tally.to_arrays()
        content = await asyncio.to_thread(pack, arrays)
        await asyncio.to_thread(self._store.put, self.replica, DRIFT, subject, images, content)
        found = await asyncio.to_thread(self._store.get, DRIFT, subject)
        if self._followed is None or self._followed[0] != subject:
            fresh: DriftMonitor | None = self._watch.begin(guard)
            assert fresh is not None
            self._followed = subject, FleetMonitor(fresh)
        fleet, before = self._followed[1], self._followed[1].state
        self.fleet = await asyncio.to_thread(_look, fleet, found)
        if self.fleet.state is not before:
            steady = self.fleet.state is State.STEADY
            log.log(
                logging.INFO if steady else logging.WARNING,
                "all gateways: %s -> %s after %d images of %d gateways (%s): %s",
                *(before, self.fleet.state, self.fleet.images, self.fleet.gateways),
                *(self.fleet.alarmed_by, MEANING[self.fleet.state]),
            )


def _look(fleet: FleetMonitor, found: Mapping[str, bytes]) -> FleetView:
    tallies = {}
    for replica, content in found.items():
        try:
            tallies[replica] = Tally.from_arrays(unpack(content))
        except (SketchError, InputError) as error:
            log.warning("what gateway %s saw is left out: %s", replica, error)
    fleet.look(tallies)
    return FleetView.of(fleet)
