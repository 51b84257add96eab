"""The consistency profile: is the way this image answers small changes usual for its predicted class?

Every published detector asks one question in one direction. The profile asks several (`probes`), takes
the log-odds of the predicted label under each, and measures how far the vector lies from those of benign
images with the same prediction: the Mahalanobis distance with the class's mean and one covariance for all
classes, shrunk by Ledoit and Wolf (J. Multivariate Analysis 88, 2004, lemma 3.2 and section 3.3).

d_r(x) = ‖(L⁻¹ (v − μ_ŷ))_{1..r}‖²,  LLᵀ = Σ,  v_j = z_ŷ − log Σ_{c ≠ ŷ} exp z_c  with logits z of probe j

L is triangular, so d_r is the distance in the answers to the first probes alone, and grows with r. The probes
are asked in rungs (`detectors.probes.Ladder`): an image whose distance after a rung is among the lower ones
of its class is cleared there, and that distance is its score; whoever is never cleared has the last one. One
function of the image and of what was fitted, so its conformal p-values keep the budget like any score's.

Needs probabilities, no weights. There is no paper to be exact to: it is this project's own.
"""

import math
from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor

from detectors.base import (
    Access,
    BasePass,
    CalibrationError,
    Classifier,
    Fit,
    Floats,
    Integers,
    Scores,
    Stages,
    Terms,
)
from detectors.behaviour import Cost
from detectors.copies import logits_of_copies
from detectors.early_exit import evaluate_until_certain
from detectors.probes import DEFAULT_PRESET, PRESETS, Ladder, Probe

__all__ = ["Profile", "ProfileScorer", "ledoit_wolf", "log_odds", "prefix_distances"]

LARGEST_LOG_ODDS = 30.0  # a probability within 1e-13 of 0 or 1: further out is rounding, not evidence
PRIOR_WEIGHT = 5.0  # what is known of all classes counts as this many images of every class


def log_odds(logits: Tensor, labels: Tensor) -> Tensor:
    """log p/(1 − p) of `labels` (B,) under `logits` (B, K): from the logits, so that confidences next to 1
    are still told apart. Returns (B,) within ±30."""
    chosen = labels[:, None]
    others = logits.scatter(1, chosen, -math.inf).logsumexp(1)
    return (logits.gather(1, chosen).squeeze(1) - others).clamp(-LARGEST_LOG_ODDS, LARGEST_LOG_ODDS)


def ledoit_wolf(centred: Floats) -> Floats:
    """Covariance (d, d) of rows (m, d) with mean zero, shrunk towards a multiple of the identity by the
    amount that minimises the expected squared error."""
    count, size = centred.shape
    sample = centred.T @ centred / count
    mean_variance = np.trace(sample) / size
    distance = float(((sample - mean_variance * np.eye(size)) ** 2).sum())
    squares = centred**2
    spread = float((squares.T @ squares / count - sample**2).sum() / count)
    shrinkage = 0.0 if distance == 0 else min(1.0, spread / distance)
    shrunk: Floats = (1 - shrinkage) * sample + shrinkage * mean_variance * np.eye(size)
    return shrunk


def prefix_distances(answers: Tensor, means: Tensor, whitening: Tensor) -> Tensor:
    """‖(L⁻¹ (v − μ))_{1..r}‖² for r = 1..d, of `answers` v (B, d) with `means` μ (B, d) and `whitening` L⁻¹
    (d, d), lower triangular; all float64. What is not a number spoils the distances from it on, and none
    before it."""
    lost = answers.isnan().cumsum(1) > 0
    whitened = (answers - means).nan_to_num(nan=0.0) @ whitening.T
    return whitened.masked_fill(lost, math.nan).square().cumsum(1)


class Profile:
    """The consistency profile up a `ladder` of probes; satisfies `detectors.base.Detector`.

    Evidence is (m, 1 + probes): the log-odds of the prediction for the image itself, then per probe.
    """

    name = "profile"
    needs = Access.PROBABILITIES

    def __init__(
        self, classifier: Classifier, ladder: Ladder | Sequence[Probe] = PRESETS[DEFAULT_PRESET]
    ) -> None:
        """A sequence of probes is a ladder of one rung. Raises `InputError` without probes."""
        self.classifier = classifier
        self.ladder = ladder if isinstance(ladder, Ladder) else Ladder((tuple(ladder),))
        self.probes = self.ladder.probes

    def settings(self) -> dict[str, Any]:
        probes = {probe.name: probe.strength for probe in self.probes}
        if len(self.ladder.rungs) == 1:
            return {"probes": probes}
        return {"probes": probes, "rungs": list(self.ladder.ends), "clears": self.ladder.clears}

    def measure(self, images: Tensor) -> Tensor:
        base = BasePass.of(images, self.classifier.logits(images))
        own = log_odds(base.logits, base.labels)
        return torch.cat([own[:, None], self.answers(base, range(len(self.probes)), None)], dim=1)

    def answers(self, base: BasePass, which: Sequence[int], rows: Tensor | None) -> Tensor:
        """(R, len(which)): the log-odds under these probes, all of them in as few batches as can be."""
        images = base.images if rows is None else base.images[rows]
        labels = base.labels if rows is None else base.labels[rows]
        logits = logits_of_copies(self.classifier, images, [self.probes[number].apply for number in which])
        return log_odds(logits.flatten(0, 1), labels.repeat(len(which))).view(len(which), -1).T

    def fit(self, evidence: Floats, predicted: Integers, labels: Integers | None) -> Fit:
        """Class means, the common covariance, and the gates of all rungs but the last. Every class's mean and
        gate is shrunk towards that of all, so that a class with few images, or none, has one."""
        if len(evidence) < 2:
            raise CalibrationError("the profile needs at least two benign images")
        classes = self.classifier.num_classes
        counts = np.bincount(predicted, minlength=classes)[:, None]
        sums = np.zeros((classes, evidence.shape[1]))
        np.add.at(sums, predicted, evidence)
        means = (sums + PRIOR_WEIGHT * evidence.mean(0)) / (counts + PRIOR_WEIGHT)
        covariance = ledoit_wolf(evidence - means[predicted])
        # Identical images leave no spread at all; a small floor keeps the inverse finite.
        covariance += np.eye(len(covariance)) * (1e-6 * np.trace(covariance) / len(covariance) + 1e-9)
        whitening = np.linalg.inv(np.linalg.cholesky(covariance))
        fit: dict[str, Any] = {"means": means.tolist(), "whitening": whitening.tolist()}
        if len(self.ladder.rungs) > 1:
            distances = self._distances(evidence, predicted, fit)[:, :-1]
            fit["gates"] = _gates(distances, predicted, classes, self.ladder.clears).tolist()
        return fit

    def _distances(self, evidence: Floats, predicted: Integers, fit: Fit) -> Floats:
        """(m, rungs), never falling from one to the next."""
        means = torch.from_numpy(np.array(fit["means"])[predicted])
        whitening = torch.from_numpy(np.array(fit["whitening"]))
        prefixes: Floats = prefix_distances(torch.from_numpy(evidence), means, whitening).numpy()
        return prefixes[:, list(self.ladder.ends)]

    def score(self, evidence: Floats, predicted: Integers, fit: Fit) -> Floats:
        distances = self._distances(evidence, predicted, fit)
        rung = _cleared_at(distances, _gates_of(fit, predicted))
        scores: Floats = np.take_along_axis(distances, rung[:, None], 1)[:, 0]
        return scores

    def plan(self, evidence: Floats, predicted: Integers, fit: Fit, thresholds: Floats) -> Stages:
        return self.stages

    @property
    def stages(self) -> Stages:
        """The probes of every rung, by number."""
        starts = [0, *self.ladder.ends[:-1]]
        return [list(range(start, end)) for start, end in zip(starts, self.ladder.ends, strict=True)]

    def cost(
        self, evidence: Floats, predicted: Integers, fit: Fit, thresholds: Floats, stages: Stages
    ) -> Cost:
        """An image is asked until it is cleared, or until its distance so far exceeds its threshold."""
        costs = [sum(probe.cost for probe in rung) for rung in self.ladder.rungs]
        distances = self._distances(evidence, predicted, fit)
        rung = _cleared_at(distances, _gates_of(fit, predicted))
        beyond = (distances > thresholds[:, None]).argmax(1)  # the first such rung, or 0 for none
        last = np.where((distances > thresholds[:, None]).any(1), np.minimum(rung, beyond), rung)
        expected = float(np.cumsum(costs)[last].mean())
        return Cost(float(sum(costs)), expected)

    def scorer(self, fit: Fit, stages: Stages | None = None) -> "ProfileScorer":
        """The ladder is the profile's own: `stages` change nothing."""
        return ProfileScorer(self, fit)

    def maxima(self, fit: Fit) -> Floats:
        """The distance has no largest value."""
        return np.full(self.classifier.num_classes, np.inf)

    def data_free_fit(self) -> Fit | None:
        return None  # what is usual is learnt from benign images

    def fixed_thresholds(self, fit: Fit) -> Floats:
        """The 99 % quantile of χ² with 1 + probes degrees of freedom (Wilson and Hilferty, 1931): what a
        Gaussian profile would exceed once in a hundred images. There is no paper's T to take."""
        freedom = 1 + len(self.probes)
        quantile = freedom * (1 - 2 / (9 * freedom) + 2.326 * math.sqrt(2 / (9 * freedom))) ** 3
        return np.full(self.classifier.num_classes, quantile)


def _gates(distances: Floats, predicted: Integers, classes: int, clears: float) -> Floats:
    """(classes, rungs): the quantile `clears` of benign `distances` (m, rungs) of every class."""
    pooled = np.quantile(distances, clears, axis=0)
    gates = np.tile(pooled, (classes, 1))
    for label, count in zip(*np.unique(predicted, return_counts=True), strict=True):
        own = np.quantile(distances[predicted == label], clears, axis=0)
        gates[label] = (count * own + PRIOR_WEIGHT * pooled) / (count + PRIOR_WEIGHT)
    return gates


def _gates_of(fit: Fit, predicted: Integers) -> Floats:
    """(m, rungs − 1): the gates of the classes that images were `predicted` as."""
    gates = np.array(fit["gates"]) if "gates" in fit else np.empty((len(fit["means"]), 0))
    return gates[predicted]


def _cleared_at(distances: Floats, gates: Floats) -> Integers:
    """(m,) the number of the first rung whose gate an image passes, or of the last. `distances` (m, R) that
    are not numbers pass none."""
    passed = np.concatenate([distances[:, :-1] <= gates, np.ones((len(distances), 1), dtype=bool)], axis=1)
    first: Integers = passed.argmax(1)
    return first


class ProfileScorer:
    """A fitted `Profile`."""

    def __init__(self, detector: Profile, fit: Fit) -> None:
        """Raises `CalibrationError` for a fit with other rungs."""
        self.detector, self.stages = detector, detector.stages
        self.means = torch.tensor(fit["means"], dtype=torch.float64)
        self.whitening = torch.tensor(fit["whitening"], dtype=torch.float64)
        gates = _gates_of(fit, np.arange(len(fit["means"])))
        if gates.shape[1] != len(detector.ladder.rungs) - 1:
            raise CalibrationError(
                f"the profile was fitted with {gates.shape[1]} gates, and its ladder has "
                f"{len(detector.ladder.rungs) - 1}: calibrate again"
            )
        # What no gate clears is asked everything: after the last rung there is nothing more to ask.
        self.gates = torch.from_numpy(np.pad(gates, ((0, 0), (0, 1)), constant_values=math.inf))
        self.ends = torch.tensor(detector.ladder.ends)

    @property
    def engine(self) -> str:
        rungs = self.detector.ladder.rungs
        return (
            "one batch of all probes"
            if len(rungs) == 1
            else f"a batch of probes on each of {len(rungs)} rungs"
        )

    def base(self, images: Tensor) -> BasePass | None:
        return None

    def score(self, base: BasePass, thresholds: Tensor | None = None) -> Scores:
        """Asks until an image is cleared, or until its distance so far exceeds its threshold: it can only
        grow."""
        self._settle_on(base.logits.device)
        own = log_odds(base.logits, base.labels)[:, None]
        means, gates = self.means[base.labels], self.gates[base.labels]

        def bounds(terms: Terms) -> tuple[Tensor, Tensor]:
            answers = torch.cat([own, terms.values], 1).double()
            distances = prefix_distances(answers, means, self.whitening)[:, self.ends]
            asked = terms.known.cumsum(1)[:, self.ends - 1] == self.ends  # (B, R): is the distance known?
            nothing = torch.zeros_like(distances)
            sofar = torch.where(asked, distances, nothing).amax(1)
            cleared = asked & (distances <= gates)
            cleared[:, -1] = asked[:, -1]  # a distance that is not a number is the score all the same
            score = distances.gather(1, cleared.int().argmax(1, keepdim=True)).squeeze(1)
            settled = cleared.any(1)
            return torch.where(settled, score, sofar), torch.where(settled, score, math.inf)

        if len(self.stages) == 1:  # there is nothing to stop before, and looking would wait for the device
            thresholds = None
        terms = base.terms("profile", len(self.detector.probes))
        return evaluate_until_certain(
            terms,
            self.stages,
            lambda which, rows: self.detector.answers(base, which, rows),
            thresholds,
            bounds,
        )

    def _settle_on(self, device: torch.device) -> None:
        """Once: a scorer serves one device."""
        if self.means.device != device:
            self.means, self.whitening = self.means.to(device), self.whitening.to(device)
            self.gates, self.ends = self.gates.to(device), self.ends.to(device)
