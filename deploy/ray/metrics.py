"""Every replica's metrics, under their own names, through Ray's exporter.

A request to /metrics reaches one replica of many, and nobody can ask scorers at all. Ray has an exporter on
every node for all that runs there; it puts `ray_` before the names and says which replica it was.
"""

import threading

from prometheus_client import CollectorRegistry
from ray.serve.metrics import Gauge

__all__ = ["Mirror"]

EVERY_S = 5.0
FOREIGN = "process_"  # Ray tells these of its processes itself


class Mirror:
    """Copies a registry's values, as often as they are worth it, until its process ends."""

    def __init__(self, registry: CollectorRegistry) -> None:
        self._registry = registry
        self._gauges: dict[str, Gauge] = {}
        threading.Thread(target=self._serve, name="metrics", daemon=True).start()

    def _serve(self) -> None:
        waiting = threading.Event()
        while not waiting.wait(EVERY_S):
            self.copy()

    def copy(self) -> None:
        """All values as they are now. Counters and histograms go as gauges: `rate` takes either."""
        for family in self._registry.collect():
            if family.name.startswith(FOREIGN):
                continue
            for sample in family.samples:
                gauge = self._gauges.get(sample.name)
                if gauge is None:
                    gauge = Gauge(sample.name, family.documentation, tuple(sample.labels))
                    self._gauges[sample.name] = gauge
                gauge.set(sample.value, dict(sample.labels))
