"""Requests to a remote classifier, and what a verdict costs in questions."""

from typing import Any

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram

from app.metrics.buckets import NAMESPACE, QUERIES, SECONDS

__all__ = ["UpstreamMetrics"]


class UpstreamMetrics:
    def __init__(self, registry: CollectorRegistry) -> None:
        ours: dict[str, Any] = {"namespace": NAMESPACE, "registry": registry}
        self._upstream_attempts = Counter(
            "upstream_attempts_total",
            "Requests to the remote classifier, by how they ended.",
            ["outcome"],
            **ours,
        )
        self._upstream_seconds = Histogram(
            "upstream_attempt_duration_seconds",
            "From the head of a request to the remote classifier to the end of its answer.",
            buckets=SECONDS,
            **ours,
        )
        self._upstream_queries = Counter(
            "upstream_queries_total",
            "Images that the remote classifier was asked about, attempts counted.",
            **ours,
        )
        self._decision_queries = Histogram(
            "upstream_queries_per_decision",
            "Images that the remote classifier was asked about for one verdict: the mean of its batch.",
            buckets=QUERIES,
            **ours,
        )
        self._breaker = Gauge(
            "upstream_breaker_open", "1 while the remote classifier is left alone after failures.", **ours
        )

    def attempt(self, outcome: str, images: int, seconds: float) -> None:
        """One request about `images` to a remote classifier has ended."""
        self._upstream_attempts.labels(outcome).inc()
        self._upstream_queries.inc(images)
        self._upstream_seconds.observe(seconds)

    def queries(self, each: float, images: int) -> None:
        """So many `images` were judged together, by `each` queries for one in the mean."""
        for _ in range(images):
            self._decision_queries.observe(each)

    def breaker(self, is_open: bool) -> None:
        self._breaker.set(is_open)
