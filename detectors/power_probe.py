"""What would these detectors do against a backdoor in *this* network? Implant some, and look.

Benign images can show that a detector could reject something; they cannot show what. The probe gives
copies of the network known backdoors (`implant`), several kinds of trigger and target labels, calibrates
the detectors on each copy as on any model, and counts the triggered images that they reject.
"""

import time
from collections.abc import Callable, Sequence

import numpy as np
import torch
from torch import Tensor, nn

from detectors.base import CalibrationError, Detector, Floats, InputError, Integers
from detectors.budget import share_budget
from detectors.calibration import (
    BenignSample,
    DetectorCalibration,
    calibrate,
    cross_scores,
    images_needed,
)
from detectors.implant import Implanted, chunks, implant
from detectors.power_report import Power, PowerReport, Probed
from detectors.references import keep_references, references_wanted, with_references
from detectors.triggers import TRIGGERS

__all__ = ["Build", "Tell", "plan_probes", "probe_power"]

LEAST_IMPLANTING, MOST_IMPLANTING = 50, 300  # benign images that a backdoor is implanted with
MOST_CALIBRATING, MOST_TRIGGERED = 300, 100
MOST_TARGETS = 3
CHUNK = 50  # images measured between two looks at the clock
HELD = 0.9  # success rate, on images the copy was not tuned on, from which a backdoor counts as one
KEPT = 0.8  # share of clean images on which such a copy has to agree with the network

Build = Callable[[nn.Module], Sequence[Detector]]
"""A network, pixels → logits → the detectors that would guard it."""
Tell = Callable[[str, float], object]
"""Told what is being done, and the seconds since the start."""
Measured = tuple[Integers, dict[str, Floats]]
"""Predictions (m,) and the evidence of every detector (m, F)."""


class _TimeUp(Exception):  # noqa: N818  (no error: it ends the probing)
    pass


def plan_probes(kinds: Sequence[str], targets: Sequence[int]) -> list[tuple[str, int]]:
    """Every kind with every target, in an order whose every beginning is balanced: time may cut it off."""
    shifts = range(len(targets))
    return [(kind, targets[(at + shift) % len(targets)]) for shift in shifts for at, kind in enumerate(kinds)]


def probe_power(
    network: nn.Module,
    images: Tensor,
    labels: Tensor | None,
    build: Build,
    *,
    alpha: float = 0.01,
    kinds: Sequence[str] = tuple(TRIGGERS),
    targets: Sequence[int] | None = None,
    seconds: float = 55.0,
    seed: int = 0,
    clock: Callable[[], float] = time.monotonic,
    tell: Tell = lambda _what, _seconds: None,
) -> PowerReport:
    """Implant backdoors in copies of `network` until `seconds` are over, and run detectors on each.

    `network`: pixels in [0, 1] → logits (B, K), in eval mode; it is only read. `images` (m, C, H, W) float32
    in [0, 1] on its device, benign, in random order; `labels` (m,) or None. `targets`: labels to aim at;
    by default three of those that benign images are predicted as. Raises `CalibrationError` for too few
    images, `InputError` for an unknown kind or label.
    """
    if unknown := [kind for kind in kinds if kind not in TRIGGERS]:
        raise InputError(f"unknown trigger {unknown[0]!r}; known: {', '.join(TRIGGERS)}")
    started = clock()
    bench = _Bench(network, images, labels, build, alpha, seed, lambda: clock() - started > seconds)
    plan = plan_probes(kinds, bench.targets(targets))
    probes: list[Probed] = []
    longest = 0.0
    for number, (kind, target) in enumerate(plan, start=1):
        begun = clock()
        if begun - started + longest > seconds:
            break
        name = f"{number}/{len(plan)} {kind}, target {target}"

        def step(what: str, name: str = name) -> None:
            tell(f"{name}: {what}", clock() - started)

        try:
            probes.append(bench.probe(kind, target, step))
        except _TimeUp:
            break
        longest = max(longest, clock() - begun)
    rest = tuple(plan[len(probes) :])
    counts = len(bench.implanting), len(bench.calibrating), len(bench.calibrating[:MOST_TRIGGERED])
    return PowerReport(alpha, *counts, clock() - started, tuple(probes), rest)


class _Bench:
    """One network on the bench: which images are for what, and one probe at a time."""

    def __init__(
        self,
        network: nn.Module,
        images: Tensor,
        labels: Tensor | None,
        build: Build,
        alpha: float,
        seed: int,
        out_of_time: Callable[[], bool],
    ) -> None:
        self.network, self.build, self.alpha, self.seed = network, build, alpha, seed
        self.out_of_time = out_of_time
        detectors = build(network)
        aside, needed = references_wanted(detectors), images_needed(alpha / len(detectors))
        if len(images) < aside + needed + LEAST_IMPLANTING:
            kept = f"{aside} are kept to compare others with, " if aside else ""
            raise CalibrationError(
                f"{len(images)} benign images are too few to probe the power at a budget of {alpha:g}: {kept}"
                f"{needed} are to calibrate on and {LEAST_IMPLANTING} to implant with; give at least "
                f"{aside + needed + LEAST_IMPLANTING}, or raise alpha"
            )
        self.references = keep_references(detectors, images[:aside])
        images, labels = images[aside:], None if labels is None else labels[aside:]
        split = min(MOST_IMPLANTING, len(images) - needed)
        end = split + max(needed, MOST_CALIBRATING)
        self.implanting, self.calibrating = images[:split], images[split:end]
        self.labels = None if labels is None else labels[split:end].cpu().numpy().astype(np.int64)
        self.predicted = self.predict(network, self.calibrating)
        self.classes = self.logits(network, images[:1]).shape[1]

    def targets(self, wanted: Sequence[int] | None) -> list[int]:
        """`wanted`, or some labels that benign images are predicted as, drawn from the seed."""
        if wanted is None:
            seen = np.unique(self.predicted)
            drawn = np.random.default_rng(self.seed).permutation(seen)[:MOST_TARGETS]
            return [int(label) for label in drawn]
        if not wanted or not all(0 <= label < self.classes for label in wanted):
            raise InputError(f"targets are labels from 0 to {self.classes - 1}, not {list(wanted)}")
        return list(wanted)

    def probe(self, kind: str, target: int, tell: Callable[[str], None]) -> Probed:
        """Implant, see whether it held, and if so run every detector. Raises `_TimeUp`."""
        trigger = TRIGGERS[kind](self.calibrating.shape[1:], self.seed)
        tell("implanting")
        made = implant(
            self.network, self.implanting, trigger, target, out_of_time=self.out_of_time, seed=self.seed
        )
        triggered = trigger(self.calibrating[torch.from_numpy(self.predicted != target)][:MOST_TRIGGERED])
        if len(triggered) == 0:
            raise CalibrationError(
                f"all benign images are predicted as label {target}: none is left to trigger"
            )
        success = float((self.predict(made.network, triggered) == target).mean())
        agreement = float((self.predict(made.network, self.calibrating) == self.predicted).mean())
        held = success >= HELD and agreement >= KEPT
        caught, powers = self.judge(made, triggered, target, tell) if held else (None, {})
        return Probed(kind, target, made.steps, success, agreement, held, caught, powers)

    @torch.inference_mode()
    def judge(
        self, made: Implanted, triggered: Tensor, target: int, tell: Callable[[str], None]
    ) -> tuple[float, dict[str, Power]]:
        """The share that all detectors together catch, and the power of each."""
        detectors = [with_references(each, self.references) for each in self.build(made.network)]
        tell("measuring benign images")
        predicted, evidence = self.measure(made.network, detectors, self.calibrating)
        tell("measuring triggered images")
        answers, found = self.measure(made.network, detectors, triggered)
        sample = BenignSample(predicted, self.labels, evidence)
        caught = np.zeros(len(triggered), dtype=np.bool_)
        powers = {}
        parts = share_budget(detectors, sample, self.alpha)
        for each in detectors:
            caught |= rejected(each, parts[each.name], found[each.name], answers)
            part = calibrate(each, sample, self.alpha)
            hit = rejected(each, part, found[each.name], answers)
            benign, scores = cross_scores(each, sample), each.score(found[each.name], answers, part.fit)
            same = benign[predicted == target]
            powers[each.name] = Power(
                float(hit.mean()), auroc(benign, scores), auroc(same, scores) if len(same) else None
            )
        return float(caught.mean()), powers

    def measure(self, network: nn.Module, detectors: Sequence[Detector], images: Tensor) -> Measured:
        predicted, evidence = [], {each.name: list[Floats]() for each in detectors}
        for part in chunks(images, CHUNK):
            predicted.append(self.predict(network, part))
            for each in detectors:
                if self.out_of_time():
                    raise _TimeUp
                evidence[each.name].append(each.measure(part).double().cpu().numpy())
        return np.concatenate(predicted), {name: np.concatenate(rows) for name, rows in evidence.items()}

    @torch.inference_mode()
    def logits(self, network: nn.Module, images: Tensor) -> Tensor:
        return torch.cat([network(part).float() for part in chunks(images, CHUNK)])

    def predict(self, network: nn.Module, images: Tensor) -> Integers:
        answers: Integers = self.logits(network, images).argmax(1).cpu().numpy()
        return answers


def rejected(
    detector: Detector, part: DetectorCalibration, evidence: Floats, predicted: Integers
) -> np.ndarray[tuple[int], np.dtype[np.bool_]]:
    """(m,): which images with this evidence (m, F) `part` rejects; what is no number is never cleared."""
    scores = detector.score(evidence, predicted, part.fit)
    limits = part.thresholds(len(detector.maxima(part.fit)))[predicted]
    return ~(scores <= limits)


def auroc(benign: Floats, triggered: Floats) -> float:
    """P(triggered score > benign score) + ½ P(equal), over all pairs of (m,) and (n,) scores; a score that
    is no number counts as the most suspicious."""
    ordered, found = np.sort(benign), np.nan_to_num(triggered, nan=np.inf)
    below, not_above = (np.searchsorted(ordered, found, side=side) for side in ("left", "right"))
    return float((below + not_above).mean() / 2 / len(ordered))
