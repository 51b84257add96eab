"""The firewall of a process without a device: it knows the classifier, and has its images seen elsewhere."""

from collections.abc import Callable
from typing import Any

from torch import Tensor

from app.firewall import Firewall, Measured
from app.policy import Mode
from app.replicas.scorer import Benign
from detectors.references import References
from models.base import Classifier

__all__ = ["Measure", "RemoteFirewall", "Unchangeable"]

Measure = Callable[[Benign], Measured | Exception]
"""Asks one scorer, and waits for it; raises `ScorerLost` where none answers."""


class Unchangeable(Exception):  # noqa: N818  (it names the state)
    """Raised for what one process cannot change for all."""


class RemoteFirewall(Firewall):
    """Holds the classifier on the CPU, to say what it is, which calibrations fit it and what their thresholds
    are, and to try a few images. What a calibration is made of is measured where traffic is judged, by the
    same arithmetic."""

    def __init__(
        self, measure: Measure, where: str, classifier: Classifier, *arguments: Any, **options: Any
    ) -> None:
        """`where` is for the eyes of operators; the rest is as for `Firewall`."""
        super().__init__(classifier, *arguments, **options)
        self._measure_elsewhere, self._where = measure, where

    @property
    def device(self) -> str:
        return self._where

    def measure_apart(self, images: Tensor, references: References | None = None) -> Measured:
        """As `Firewall.measure_apart`, by a scorer. Raises what it raises there, and `ScorerLost`."""
        digest = self.classifier.info.digest
        answer = self._measure_elsewhere(Benign(digest, images.cpu().numpy(), references))
        if isinstance(answer, Exception):
            raise answer
        return answer

    def switch(self, mode: Mode) -> None:
        """Raises `Unchangeable`: scorers have the mode of their settings."""
        raise Unchangeable(
            f"the scorers are in {self.mode} mode by their settings, all of them alike: deploy them with "
            f"mode: {mode} to change it"
        )
