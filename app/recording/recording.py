"""The recorder, the keeper of the quarantine and retention, as the settings want them."""

from dataclasses import dataclass

from app.metrics import Metrics
from app.recording.keeper import Keeper
from app.recording.recorder import JudgedRequest, Recorder
from app.recording.retention import Limits, Retention
from app.settings import Settings
from app.storage.blobs import Blobs, open_blobs
from app.storage.decisions import DecisionStore
from app.storage.quarantine import QuarantineStore

__all__ = ["Recording", "State"]


@dataclass(frozen=True)
class State:
    """Whether something is kept, how much could not be since the start, and what is wrong now."""

    on: bool
    dropped: int
    problem: str | None


class Recording:
    """Keeps what was judged, beside the path of the images."""

    def __init__(
        self, settings: Settings, decisions: DecisionStore, quarantine: QuarantineStore, metrics: Metrics
    ) -> None:
        """Starts nothing. Raises `StoreError` for a `quarantine_url` that needs what is not installed."""
        self.blobs: Blobs = open_blobs(settings.quarantine_url, settings.data_dir)
        self._keeper = Keeper(
            quarantine,
            self.blobs,
            metrics,
            sample=settings.quarantine_sample,
            max_bytes=settings.quarantine_bytes,
            max_waiting_bytes=settings.recording_bytes,
        )
        self._recorder = Recorder(
            decisions,
            metrics,
            self._keeper.offer if settings.quarantine else lambda _: None,
            every=settings.decision_flush_ms / 1000,
            capacity=settings.decision_queue,
            max_bytes=settings.recording_bytes,
        )
        limits = Limits(
            decision_days=settings.decision_days,
            decisions=settings.decision_rows,
            quarantine_days=settings.quarantine_days,
            reviewed_days=settings.reviewed_days,
            quarantine_images=settings.quarantine_images,
            quarantine_bytes=settings.quarantine_bytes,
        )
        self.retention = Retention(decisions, quarantine, self.blobs, metrics, limits)
        self._on, self._quarantining = settings.decisions, settings.decisions and settings.quarantine

    def start(self) -> None:
        for each in (self._recorder, self._keeper, self.retention):
            each.start()

    def close(self) -> None:
        """Keep what waits. Blocks."""
        for each in (self._recorder, self._keeper, self.retention):
            each.close()

    def record(self, judged: JudgedRequest) -> None:
        """Keep what was judged, as far as the settings want it. Never blocks, never raises."""
        if self._on:
            self._recorder.record(judged)

    @property
    def decisions(self) -> State:
        return State(self._on, self._recorder.dropped, self._recorder.problem)

    @property
    def quarantine(self) -> State:
        return State(self._quarantining, self._keeper.dropped, self._keeper.problem)
