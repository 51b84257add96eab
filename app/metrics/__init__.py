"""Every metric, in one place, on a registry of its own: several gateways can live in one process.

No label value comes from a request: routes are templates; methods, verdicts and problem types come from
fixed sets. Each group of metrics is one file; `Metrics` is all of them.
"""

import prometheus_client
from prometheus_client import CollectorRegistry, ProcessCollector
from prometheus_client.exposition import choose_encoder

from app.metrics.batches import BatchMetrics
from app.metrics.drift import DriftMetrics
from app.metrics.http import HttpMetrics
from app.metrics.judging import JudgingMetrics
from app.metrics.recording import RecordingMetrics
from app.metrics.serving import ServingMetrics
from app.metrics.upstream import UpstreamMetrics

__all__ = ["Metrics"]

# The `_created` series double what is scraped and say nothing that Prometheus uses.
prometheus_client.disable_created_metrics()  # type: ignore[no-untyped-call]

GROUPS = (
    HttpMetrics,
    JudgingMetrics,
    BatchMetrics,
    ServingMetrics,
    DriftMetrics,
    RecordingMetrics,
    UpstreamMetrics,
)


class Metrics(
    HttpMetrics,
    JudgingMetrics,
    BatchMetrics,
    ServingMetrics,
    DriftMetrics,
    RecordingMetrics,
    UpstreamMetrics,
):
    """The metrics of one gateway, and the only place that writes them."""

    def __init__(self) -> None:
        self.registry = CollectorRegistry()
        for group in GROUPS:
            group.__init__(self, self.registry)
        ProcessCollector(registry=self.registry)

    def exposition(self, accept: str) -> tuple[bytes, str]:
        """Everything in the format that the `accept` header asks for, and its content type."""
        encode, content_type = choose_encoder(accept)
        return encode(self.registry), content_type
