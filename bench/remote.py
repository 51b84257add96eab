"""What guarding a remote classifier costs: the gateway in front of it against asking it directly.

Both are asked about the same images, so many at a time, by as many callers at once, in turns of a few
seconds: what else the machine does meets both. Questions per verdict are what the gateway itself counts.
"""

import itertools
import statistics
import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import httpx
import numpy as np
import torch
from PIL import Image
from torch import Tensor

from models.base import ClassifierInfo
from models.loading import load_bundle
from models.remote import Connection, RemoteClassifier

__all__ = ["RemoteOptions", "RemoteReport", "bench_remote"]

QUERIES = "triggerwall_upstream_queries_per_decision"
SUFFIXES = {".png", ".jpg", ".jpeg", ".bmp", ".webp"}
RESAMPLING = {
    "nearest": Image.Resampling.NEAREST,
    "bilinear": Image.Resampling.BILINEAR,
    "bicubic": Image.Resampling.BICUBIC,
}


@dataclass(frozen=True)
class RemoteOptions:
    """`bundle` is the remote one that the gateway at `gateway` guards; `seconds` for everything together."""

    bundle: Path
    gateway: str
    images: Path
    seconds: float = 30.0
    turn: float = 3.0
    callers: int = 4
    batch: int = 1


@dataclass
class RemoteReport:
    """Images per second of every turn, in pairs."""

    direct: list[float] = field(default_factory=list)
    guarded: list[float] = field(default_factory=list)
    queries: float = 0.0

    @property
    def ratios(self) -> list[float]:
        """How many times as fast asking directly was, turn by turn."""
        return [direct / guarded for direct, guarded in zip(self.direct, self.guarded, strict=True)]

    def sentences(self) -> list[str]:
        low, middle, high = statistics.quantiles(self.ratios, n=4, method="inclusive")
        return [
            f"directly: {statistics.median(self.direct):.0f} images/s",
            f"through the gateway: {statistics.median(self.guarded):.0f} images/s",
            f"direct / guarded: {middle:.2f} (quartiles {low:.2f} to {high:.2f}, {len(self.ratios)} turns)",
            f"questions for one verdict: {self.queries:.2f}",
        ]


def bench_remote(options: RemoteOptions) -> RemoteReport:
    """Raises `ModelError`, `ValueError` for images or a gateway that cannot be used, and httpx's errors."""
    classifier = load_bundle(options.bundle, connection=Connection(concurrency=options.callers))
    if not isinstance(classifier, RemoteClassifier):
        raise ValueError(f"{options.bundle} is no bundle of the backend remote")
    files = [path for path in sorted(options.images.rglob("*")) if path.suffix.lower() in SUFFIXES]
    if len(files) < options.batch:
        raise ValueError(f"{options.images} holds {len(files)} images, fewer than one batch")
    groups = [
        files[at : at + options.batch] for at in range(0, len(files) + 1 - options.batch, options.batch)
    ]
    tensors = [torch.stack([pixels(path, classifier.info) for path in group]) for group in groups]
    forms = [[("images", (path.name, path.read_bytes())) for path in group] for group in groups]
    limits = httpx.Limits(max_connections=options.callers)
    with httpx.Client(base_url=options.gateway, timeout=60, limits=limits) as http:
        try:
            return _measure(options, classifier, http, tensors, forms)
        finally:
            classifier.close()


def _measure(
    options: RemoteOptions,
    classifier: RemoteClassifier,
    http: httpx.Client,
    tensors: Sequence[Tensor],
    forms: Sequence[list[tuple[str, tuple[str, bytes]]]],
) -> RemoteReport:
    def direct(number: int) -> None:
        classifier.logits(tensors[number % len(tensors)])

    def guarded(number: int) -> None:
        http.post("/classify", files=forms[number % len(forms)]).raise_for_status()

    report = RemoteReport()
    for ask in (direct, guarded):
        _turn(ask, options, min(1.0, options.turn))  # connections
    verdicts, queries = _queries(http)
    for _ in range(max(2, round(options.seconds / options.turn / 2))):
        report.direct.append(_turn(direct, options, options.turn))
        report.guarded.append(_turn(guarded, options, options.turn))
    verdicts_after, queries_after = _queries(http)
    if verdicts_after == verdicts:
        raise ValueError(f"{options.gateway} guards no remote classifier")
    report.queries = (queries_after - queries) / (verdicts_after - verdicts)
    return report


def _turn(ask: Callable[[int], None], options: RemoteOptions, seconds: float) -> float:
    """Images per second of `callers` threads that ask one after the other for so many seconds."""
    numbers, done, errors = itertools.count(), [0] * options.callers, []
    started = time.perf_counter()

    def call(caller: int) -> None:
        try:
            while time.perf_counter() - started < seconds:
                ask(next(numbers))
                done[caller] += options.batch
        except Exception as error:  # raised below, where somebody hears it
            errors.append(error)

    threads = [threading.Thread(target=call, args=(caller,)) for caller in range(options.callers)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    if errors:
        raise errors[0]
    return sum(done) / (time.perf_counter() - started)


def _queries(http: httpx.Client) -> tuple[float, float]:
    """Verdicts so far, and the questions that they cost."""
    lines = http.get("/metrics").raise_for_status().text.splitlines()
    found = dict(line.split() for line in lines if line.startswith((f"{QUERIES}_count", f"{QUERIES}_sum")))
    return float(found.get(f"{QUERIES}_count", 0)), float(found.get(f"{QUERIES}_sum", 0))


def pixels(path: Path, info: ClassifierInfo) -> Tensor:
    """(C, H, W) in [0, 1] of one file, as the gateway would read it."""
    height, width = info.size
    image = Image.open(path).convert("L" if info.channels == 1 else "RGB")
    values = np.asarray(image.resize((width, height), RESAMPLING[info.interpolation]), dtype=np.float32) / 255
    return torch.from_numpy(values[None] if info.channels == 1 else values.transpose(2, 0, 1).copy())
