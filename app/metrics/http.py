"""Requests and their answers."""

from typing import Any

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram

from app.metrics.buckets import NAMESPACE, SECONDS

__all__ = ["HttpMetrics"]

METHODS = frozenset({"GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS"})


class HttpMetrics:
    def __init__(self, registry: CollectorRegistry) -> None:
        ours: dict[str, Any] = {"namespace": NAMESPACE, "registry": registry}
        self._requests = Counter(
            "http_requests_total", "HTTP requests answered.", ["method", "route", "status"], **ours
        )
        self._request_seconds = Histogram(
            "http_request_duration_seconds",
            "From the head of a request to the end of its answer.",
            ["route"],
            buckets=SECONDS,
            **ours,
        )
        self.in_flight = Gauge("http_requests_in_flight", "HTTP requests being answered.", **ours)
        self._problems = Counter("problems_total", "Problems answered, by type.", ["type"], **ours)

    def request(self, method: str, route: str, status: int, seconds: float) -> None:
        """One request was answered; `route` is the template that matched, never the path."""
        self._requests.labels(method if method in METHODS else "OTHER", route, status).inc()
        self._request_seconds.labels(route).observe(seconds)

    def problem(self, type: str) -> None:
        self._problems.labels(type).inc()
