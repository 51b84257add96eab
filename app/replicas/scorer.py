"""The device's side: one classifier behind its firewall, that judges for whoever holds the callers' end.

It speaks no HTTP and keeps no decisions, so that one which is killed has nothing to lose. It follows the
active calibration like any gateway, and judges nothing by one that it could not confirm.
"""

import math
import time
from collections.abc import Awaitable
from dataclasses import dataclass
from typing import TypeVar

import numpy as np
import numpy.typing as npt
import torch

from app.assembly import build_firewall
from app.context import request_id
from app.firewall import Measured
from app.gateway import DeviceRequest, Gateway, Judged
from app.settings import Settings
from detectors.references import References

__all__ = ["Benign", "OtherClassifier", "Scorer", "Work"]

T = TypeVar("T")
Images = npt.NDArray[np.float32]  # (B, C, H, W) in [0, 1]


class OtherClassifier(Exception):  # noqa: N818  (it names what is there)
    """Raised where a scorer serves another classifier than the one the caller speaks for: one of the two
    is being replaced."""

    retry_after = 1.0  # seconds


@dataclass(frozen=True)
class Work:
    """The readable images of one request, on their way from one process to another."""

    classifier: str  # digest of the one that is meant
    images: Images
    full: bool
    flow: str  # whose they are
    left: float  # seconds until nobody waits for the answer
    request: str  # its id, for the log


@dataclass(frozen=True)
class Benign:
    """One batch of calibration images, and what the detectors kept to compare them with."""

    classifier: str
    images: Images
    references: References | None


class Scorer:
    """One device, asked by other processes.

    What goes wrong is returned, not raised: what carries the answers wraps what is raised in its own words.
    """

    def __init__(self, settings: Settings) -> None:
        """Loads the classifier onto the device of `settings`. Raises what `create_app` raises."""
        own = settings.model_copy(update={"learn_from_traffic": False})
        self.gateway = Gateway(own, build_firewall(own), records=False)

    async def start(self) -> None:
        """Restore the active calibration and warm up; it can judge when this returns."""
        await self.gateway.start()

    async def close(self) -> None:
        """Answer everything that was taken, and end."""
        await self.gateway.close()

    async def judge(self, work: Work) -> Judged | Exception:
        """The verdicts of one request's images, which share a batch with those of other requests. When the
        calibration was confirmed is told in seconds from the arrival of `work`: clocks of two machines
        have nothing else in common."""
        return await _answered(self._judge(work))

    async def measure(self, benign: Benign) -> Measured | Exception:
        """What the detectors measure of one batch of a calibration."""
        return await _answered(self._measure(benign))

    async def _judge(self, work: Work) -> Judged:
        arrived = time.monotonic()
        self._require(work.classifier)
        gateway = self.gateway
        gateway.require_judge()
        request_id.set(work.request)
        deadline = arrived + work.left
        rows = len(work.images) * gateway.rows_per_image()
        asked = DeviceRequest(torch.from_numpy(work.images.copy()), work.full, deadline)
        limit = None if math.isinf(deadline) else deadline
        answer = await gateway.batcher.submit(asked, rows, flow=work.flow, deadline=limit)
        calibration, mode, confirmed, outcomes = answer
        return calibration, mode, confirmed - arrived, outcomes

    async def _measure(self, benign: Benign) -> Measured:
        self._require(benign.classifier)
        images = torch.from_numpy(benign.images.copy())
        return await self.gateway.worker.run(self.gateway.firewall.measure_apart, images, benign.references)

    def _require(self, classifier: str) -> None:
        serving = self.gateway.info.digest
        if serving != classifier:
            raise OtherClassifier(
                f"asked for the classifier {classifier[:12]}, this scorer serves {serving[:12]}: one of them "
                "is being replaced; try again shortly"
            )


async def _answered(answer: Awaitable[T]) -> T | Exception:
    try:
        return await answer
    except Exception as error:
        return error
