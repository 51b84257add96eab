"""Decisions and quarantined images that a gateway might have kept, put straight into its stores."""

import hashlib
from collections.abc import Sequence
from datetime import UTC, datetime, timedelta

from app.gateway import Gateway
from app.policy import Detection, Mode, Verdict
from app.storage.decisions import Decision
from app.storage.ids import DecisionIds
from app.storage.quarantine import Arrival

__all__ = ["keep"]


def keep(
    gateway: Gateway,
    images: Sequence[bytes],
    *,
    label: int = 1,
    suspicious: bool = True,
    detector: str = "spc",
    minutes_ago: float = 5,
    media_type: str = "image/png",
) -> list[str]:
    """Keep `images` as judged a second apart, the last one `minutes_ago`; their digests, in order. What was
    accepted is not put into quarantine."""
    ids, last = DecisionIds(), datetime.now(UTC) - timedelta(minutes=minutes_ago)
    decisions, arrivals = [], []
    for place, data in enumerate(images):
        at = last - timedelta(seconds=len(images) - 1 - place)
        score = 0.9 if suspicious else 0.2
        decision = Decision(
            id=ids.next(at.timestamp()),
            at=at,
            request_id="request",
            place=place,
            image_sha256=hashlib.sha256(data).hexdigest(),
            label=label,
            confidence=0.75,
            verdict=Verdict.REJECTED if suspicious else Verdict.ACCEPTED,
            mode=Mode.ENFORCE,
            calibration_id=gateway.calibrator.active.id if gateway.calibrator.active else None,
            detections=(Detection(detector, score, 0.5, 1 - score, suspicious, True),),
        )
        decisions.append(decision)
        if suspicious:
            gateway.recording.blobs.put(decision.image_sha256, data)
            arrivals.append(
                Arrival(decision.image_sha256, decision.id, at.timestamp(), len(data), media_type)
            )
    gateway.decisions.add(decisions)
    gateway.quarantine.add(arrivals)
    return [each.image_sha256 for each in decisions]
