"""How long the device takes for a batch, as measured, and what a request costs besides."""

from bisect import bisect_left
from dataclasses import asdict, dataclass
from typing import Any

from bench.plan.units import PlanError

__all__ = ["Front", "ServiceTimes"]


@dataclass(frozen=True)
class Front:
    """What a request costs outside of the device, in seconds: `loop` on the event loop, one request after
    another; `aside` elsewhere (decoding threads, the kernel), where requests do not wait for each other."""

    loop: float = 0.0
    aside: float = 0.0


@dataclass(frozen=True)
class ServiceTimes:
    """One preset: the undefended classifier, or some detectors in front of it.

    `rows`: forward rows that an image may cost at most, which the batcher counts. `points`: (images in
    a batch, mean seconds of the device), by images. `spread`: seconds of like batches over their mean.
    `most`: images a second that were answered at best, where that was measured. A device waits between
    batches for an event loop and decoders that share its cores, so batch times alone promise more.
    """

    preset: str
    rows: int
    points: tuple[tuple[float, float], ...]
    spread: tuple[float, ...] = (1.0,)
    front: Front = Front()
    most: float | None = None

    def __post_init__(self) -> None:
        """Raises `PlanError` for what cannot have been measured."""
        images = [point[0] for point in self.points]
        if not images or images != sorted(set(images)) or min(images) <= 0:
            raise PlanError(f"{self.preset}: no service times, or none in order of images")
        if min(seconds for _, seconds in self.points) <= 0 or not self.spread or min(self.spread) <= 0:
            raise PlanError(f"{self.preset}: a service time is not above 0")
        if self.most is not None and self.most <= 0:
            raise PlanError(f"{self.preset}: nothing was answered")

    def seconds(self, images: float) -> float:
        """Mean seconds of a batch: between two measured ones on the line through them, beyond the last one on
        the line from the first through it. Below the first as for the first. Never faster than `most`."""
        return max(self._device(images), images / self.most if self.most else 0.0)

    def _device(self, images: float) -> float:
        sizes = [size for size, _ in self.points]
        if images <= sizes[0] or len(sizes) == 1:
            return self.points[0][1] * (max(1.0, images / sizes[0]) if len(sizes) == 1 else 1.0)
        if images > sizes[-1]:
            (x0, y0), (x1, y1) = self.points[0], self.points[-1]
        else:
            at = bisect_left(sizes, images)
            (x0, y0), (x1, y1) = self.points[at - 1], self.points[at]
        return max(y0, y0 + (y1 - y0) * (images - x0) / (x1 - x0))

    def capacity(self, images: int) -> float:
        """Most images a second of one replica in batches of up to `images`, event loop included."""
        sizes = {1, images, *(int(size) for size, _ in self.points if size <= images)}
        device = max(size / self.seconds(size) for size in sizes)
        return min(device, 1 / self.front.loop) if self.front.loop else device

    def alone(self, share: float) -> float:
        """Seconds within which that `share` of requests of one image is answered by an idle gateway."""
        ordered = sorted(self.spread)
        slow = ordered[min(len(ordered) - 1, int(share * len(ordered)))]
        return self.front.loop + self.front.aside + slow * self.seconds(1)

    def to_json(self) -> dict[str, Any]:
        return asdict(self)

    @classmethod
    def from_json(cls, content: dict[str, Any]) -> "ServiceTimes":
        """Raises `KeyError`, `TypeError` or `ValueError` for what `to_json` does not write."""
        points = tuple((float(images), float(seconds)) for images, seconds in content["points"])
        spread = tuple(float(each) for each in content["spread"])
        most = content.get("most")  # earlier releases did not measure it
        return cls(
            str(content["preset"]), int(content["rows"]), points, spread, Front(**content["front"]),
            None if most is None else float(most),
        )  # fmt: skip
