"""Is the traffic of all replicas together still like the calibration sample?

Each replica keeps a `Tally`: sums of which label, verdict and cell of scores came how often. While traffic is
exchangeable with the calibration sample, so are the images of all replicas together, and given how often
what came, every order is as likely. So the sums of a while are replayed in random order into a monitor of
their own, which is then, in distribution, the monitor of one gateway that had seen all images: the chance
of an alarm within n images of the whole fleet is at most n / `run_length`, with no bet made a second time.
(To average the evidence of the replicas would be an e-value at any one moment, but no test martingale: they
share the calibration sample, so what one has seen tells what the others will.)
"""

from collections import Counter
from collections.abc import Mapping
from typing import TypeVar

import numpy as np

from detectors.drift import DriftMonitor, State
from detectors.tally import Tally

__all__ = ["FleetMonitor"]

MOST = 4096  # images replayed of one look: what bounds its time. Which ones is drawn by lot

K = TypeVar("K")


class FleetMonitor:
    """Follows the tallies of replicas that judge by one calibration. Not safe for several threads."""

    def __init__(self, monitor: DriftMonitor, seed: int = 0) -> None:
        """`monitor`: one that has seen nothing yet, made as those of the replicas are."""
        self.monitor = monitor
        self.replicas = 0
        self._random = np.random.default_rng(seed)
        self._known: dict[str, Tally] | None = None

    @property
    def state(self) -> State:
        return self.monitor.state

    def look(self, tallies: Mapping[str, Tally]) -> bool:
        """Take what is new since the last look in the tallies by replica; True where this raised an alarm.

        What was there at the first look is no news: it would all seem to have come at once.
        """
        self.replicas = len(tallies)
        if self._known is None:
            self._known = dict(tallies)
            return False
        news = Tally()
        for replica, tally in tallies.items():
            news += tally.since(self._known.get(replica, Tally()))
        self._known |= tallies
        return self._replay(news)

    def _replay(self, news: Tally) -> bool:
        if not news.images:
            return False
        images = min(news.images, MOST)
        share, alarms = images / news.images, self.monitor.alarms
        self.monitor.replay(
            {name: self._ordered(seen, share) for name, seen in news.events.items()},
            self._ordered(news.predicted, share),
            self._ordered(news.rejected, share),
            images=images,
            ended=news.ended,
        )
        return self.monitor.alarms > alarms

    def _ordered(self, counter: Counter[K], share: float) -> list[tuple[float, K]]:
        """A random `share` of what was counted, at random moments in [0, 1), in order."""
        keys = list(counter)
        counts = self._random.binomial(np.array([counter[key] for key in keys], dtype=np.int64), share)
        moments = self._random.random(int(counts.sum()))
        order = np.repeat(np.arange(len(keys)), counts)
        return sorted(zip(moments.tolist(), [keys[each] for each in order], strict=True))
