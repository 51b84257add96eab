"""What an image looks like under each question that a detector asks, and what the classifier answers.

The profiles' probes and SCALE-UP's scales change pixels, so there is a picture of each; detectors that look
elsewhere (amplified weights, spectra) have none.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from app.firewall import Firewall, Watch
from app.images import Pixels
from detectors.base import Detector, Floats
from detectors.label_profile import LabelProfile
from detectors.profile import Profile, log_odds
from detectors.scale_up import ScaleUp, scaled_copies

__all__ = ["Answer", "Answers", "Question", "ask", "questions"]


@dataclass(frozen=True)
class Question:
    """One change to an image. `apply`: (1, C, H, W) in [0, 1] → the same."""

    detector: str
    name: str
    strength: str
    apply: Callable[[Tensor], Tensor]


@dataclass(frozen=True)
class Answer:
    """What the classifier says of the changed image: its `label` then, and the log-odds of the label that it
    gives the unchanged one. `usual` is the benign mean and standard deviation of these for that label; None
    where they were not learnt."""

    question: Question | None
    label: int
    log_odds: float
    usual: tuple[float, float] | None

    @property
    def deviation(self) -> float | None:
        """Standard deviations from what is usual."""
        return None if self.usual is None else (self.log_odds - self.usual[0]) / self.usual[1]


@dataclass(frozen=True)
class Answers:
    """`plain` is the image itself. `by` maps a detector's name to the answers to its questions."""

    plain: Answer
    by: dict[str, list[Answer]]


def questions(detectors: Sequence[Detector]) -> list[Question]:
    """All there are, in the order of the detectors; scales that two detectors share come once."""
    found: list[Question] = []
    for each in detectors:
        if isinstance(each, Profile | LabelProfile):
            found += [Question(each.name, probe.name, probe.strength, probe.apply) for probe in each.probes]
        elif isinstance(each, ScaleUp) and not any(q.detector in ("spc", "nspc") for q in found):
            found += [_scaling(each.name, scale) for scale in each.scales]
    return found


def _scaling(detector: str, scale: float) -> Question:
    return Question(
        detector, f"x{scale:g}", "pixels multiplied", lambda images: scaled_copies(images, [scale])
    )


@torch.inference_mode()
def ask(firewall: Firewall, pixels: Pixels) -> Answers:
    """Put every question to the classifier, as one batch; on the thread that owns the device.

    `pixels` (C, H, W) are as the classifier takes them."""
    asked = questions(firewall.detectors)
    image = torch.from_numpy(pixels)[None].to(firewall.classifier.device)
    logits = firewall.classifier.logits(torch.cat([image, *[each.apply(image) for each in asked]]))
    label = logits[:1].argmax(1)
    odds = log_odds(logits, label.expand(len(logits))).tolist()
    labels = logits.argmax(1).tolist()
    usual = _usual(firewall.guard.watches if firewall.guard else (), int(label))
    plain = Answer(None, labels[0], odds[0], usual.get(None))
    by: dict[str, list[Answer]] = {}
    for question, found, value in zip(asked, labels[1:], odds[1:], strict=True):
        known = usual.get(question.name) if question.detector == Profile.name else None
        by.setdefault(question.detector, []).append(Answer(question, found, value, known))
    return Answers(plain, by)


def _usual(watches: Sequence[Watch], label: int) -> dict[str | None, tuple[float, float]]:
    """Benign mean and standard deviation of the log-odds for `label`, by probe; under None of the image
    itself. The profile has learnt them, see `Profile.fit`."""
    for watch in watches:
        if watch.detector == Profile.name and watch.calibration is not None:
            fit, probes = watch.calibration.fit, watch.calibration.settings["probes"]
            means = fit["means"][label]
            return dict(
                zip([None, *probes], zip(means, _deviations(fit["whitening"]), strict=True), strict=True)
            )
    return {}


def _deviations(whitening: Sequence[Sequence[float]]) -> Floats:
    """(d,) standard deviations under the covariance LLᵀ of which `whitening` is L⁻¹."""
    deviations: Floats = np.sqrt((np.linalg.inv(np.array(whitening)) ** 2).sum(1))
    return deviations
