"""IBD-PSC: does the confidence survive amplified BatchNorm layers? (Hou et al., ICML 2024, arXiv:2405.09786)

PSC(x) = (1/n) Σ_{i=k}^{k+n−1} F_i(x)[argmax F(x)]          (equation 3)

F_i is the classifier with γ and β of its last i BatchNorm layers times ω. The benign confidence falls,
the triggered one stays. k is the first i at which benign images are misclassified more often than ξ
(algorithm 1). Needs weights.
"""

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from detectors.amplification import Amplified, batch_norm_order
from detectors.base import (
    Access,
    AccessError,
    BasePass,
    CalibrationError,
    Classifier,
    Fit,
    Floats,
    InputError,
    Integers,
    Scores,
    Stages,
    UnsupportedNetwork,
)
from detectors.behaviour import Cost, collapse, sink_class
from detectors.early_exit import bounded_mean, mean_of
from detectors.engine import build_engine, flops
from detectors.factors import Amplifiable, Factors
from detectors.stages import cheapest_stages, expected_cost

__all__ = ["PAPER_THRESHOLD", "IbdPsc", "IbdPscScorer", "choose_k", "sink_class"]

PAPER_THRESHOLD = 0.9
EXAMPLES = 16  # images kept for the engine's self-check

Engine = Callable[[nn.Module, float, Sequence[int], Sequence[str], Tensor], Amplified]
"""(network, ω, counts, execution order of BatchNorm layers, example images) → resident networks."""


def open_engine(
    classifier: Classifier, example: Tensor, omega: float, engine: Engine
) -> tuple[list[str], Callable[[Sequence[int], Tensor], Amplified]]:
    """The BatchNorm layers of `classifier` in execution order, and what makes resident networks of (counts,
    example images). Raises `AccessError` and `UnsupportedNetwork`."""
    network = classifier.network
    if network is not None:
        order = batch_norm_order(network, example)
        return order, lambda counts, images: engine(network, omega, counts, order, images)
    if not isinstance(classifier, Amplifiable):
        raise AccessError("IBD-PSC needs the classifier's weights; with labels alone use SCALE-UP")
    layers = list(classifier.amplifiable)
    if not layers:
        raise UnsupportedNetwork(
            "IBD-PSC amplifies BatchNorm layers and this network has none; guard it with the other detectors"
        )
    return layers, lambda counts, images: Factors(classifier, omega, counts, layers, images)


def choose_k(error_rates: Sequence[float], n: int, xi: float) -> tuple[int, str | None]:
    """Algorithm 1: the first i (from 1) with `error_rates[i − 1]` > ξ, and a note where it could not be kept.

    The n networks k..k+n−1 must exist, so k is at most L − n + 1 with L = len(error_rates).
    """
    layers = len(error_rates)
    last = layers - n + 1
    exceeding = [i for i, rate in enumerate(error_rates, start=1) if rate > xi]
    if not exceeding:
        return (
            last,
            f"no amplification makes benign images fail more often than xi = {xi}: k = {last}, the largest",
        )
    if exceeding[0] > last:
        return (
            last,
            f"k lowered from {exceeding[0]} to {last}: the network has {layers} BatchNorm layers and n = {n}",
        )
    return exceeding[0], None


class IbdPsc:
    """PSC over n networks; satisfies `detectors.base.Detector`.

    Evidence is (m, 2L): F_i(x)[ŷ] for i = 1..L, then argmax F_i(x) for i = 1..L.
    """

    name = "psc"
    needs = Access.WEIGHTS

    def __init__(
        self,
        classifier: Classifier,
        example: Tensor,
        *,
        omega: float = 1.5,
        n: int = 5,
        xi: float = 0.6,
        engine: Engine = build_engine,
        precision: str = "float32",
    ) -> None:
        """`example` (B, C, H, W) is passed through the network to see the order of its layers and to check
        the engine; real images take its place as soon as `measure` has seen some.

        Raises `AccessError` without weights, `UnsupportedNetwork` without BatchNorm, `InputError` for
        ω ≤ 0, n < 1 or ξ outside [0, 1). Where the network has fewer than n BatchNorm layers, n is
        lowered to their number. `precision` names the arithmetic of `engine`: scores of another one are
        other scores, and a calibration is bound to its own.
        """
        if not (omega > 0 and n >= 1 and 0 <= xi < 1):
            raise InputError(f"omega > 0, n ≥ 1 and 0 ≤ xi < 1 are needed, not {omega}, {n}, {xi}")
        self.omega, self.xi, self.precision = omega, xi, precision
        self.num_classes = classifier.num_classes
        self.order, self._build = open_engine(classifier, example, omega, engine)
        self.n = min(n, len(self.order))
        self._example = example
        self._every: Amplified | None = None
        self._costs: Floats | None = None

    def settings(self) -> dict[str, Any]:
        return {"omega": self.omega, "n": self.n, "xi": self.xi, "precision": self.precision}

    def measure(self, images: Tensor) -> Tensor:
        if self._every is None:
            self._example = images[:EXAMPLES]
            self._every = self._build(range(1, len(self.order) + 1), self._example)
        logits, forks = self._every.base(images)
        # One by one: all at once would hold L batches, and each starts from its own fork anyway.
        amplified = torch.cat([self._every.variants(forks, [number]) for number in range(len(self.order))])
        confidences = confidence_in(amplified, logits.argmax(1))
        return torch.cat([confidences, amplified.argmax(2).T.float()], dim=1)

    def fit(self, evidence: Floats, predicted: Integers, labels: Integers | None) -> Fit:
        """k by algorithm 1, against true labels where given, else against the plain predictions."""
        if len(evidence) == 0:
            raise CalibrationError("IBD-PSC needs benign images to choose k")
        truth = predicted if labels is None else labels
        answers = evidence[:, len(self.order) :]
        error_rates = (answers != truth[:, None]).mean(0).tolist()
        k, note = choose_k(error_rates, self.n, self.xi)
        sink, share = sink_class(answers[:, k + self.n - 2])
        return {
            "k": k,
            "n": self.n,
            "error_rates": error_rates,
            "sink": {"label": sink, "share": share},
            "notes": [note] if note else [],
        }

    def score(self, evidence: Floats, predicted: Integers, fit: Fit) -> Floats:
        psc: Floats = mean_of(torch.from_numpy(evidence[:, self._chosen(fit)])).numpy()
        return psc

    def plan(self, evidence: Floats, predicted: Integers, fit: Fit, thresholds: Floats) -> Stages:
        chosen = self._chosen(fit)
        return cheapest_stages(evidence[:, chosen], thresholds, self._passes()[chosen])

    def cost(
        self, evidence: Floats, predicted: Integers, fit: Fit, thresholds: Floats, stages: Stages
    ) -> Cost:
        chosen = self._chosen(fit)
        costs = self._passes()[chosen]
        expected = expected_cost(stages, evidence[:, chosen], thresholds, costs, per_stage=0)
        return Cost(float(costs.sum()), expected)

    def describe(self, evidence: Floats, predicted: Integers, fit: Fit) -> dict[str, Any]:
        """Collapse and benign confidence F_i(x)[ŷ] by the number i of amplified layers, all of 1..L."""
        layers = len(self.order)
        confidence = np.quantile(evidence[:, :layers], (0.05, 0.5, 0.95), axis=0).T
        return {
            "collapse": [
                collapse("amplification", i + 1, evidence[:, layers + i], predicted) for i in range(layers)
            ],
            "confidence": [
                {"layers": i, "q05": low, "median": median, "q95": high}
                for i, (low, median, high) in enumerate(confidence.tolist(), start=1)
            ],
        }

    def _chosen(self, fit: Fit) -> slice:
        """The columns of the evidence that hold the confidences of k..k+n−1."""
        return slice(int(fit["k"]) - 1, int(fit["k"]) - 1 + int(fit["n"]))

    def _passes(self) -> Floats:
        """(L,) what each variant costs from its fork on, in forward passes; 1 each until counted."""
        if self._costs is None and self._every is not None:
            counted = flops(self._every, self._example[:1])
            if counted["base"] > 0:  # another runtime's work is not counted
                self._costs = np.array(counted["variants"]) / counted["base"]
        return np.ones(len(self.order)) if self._costs is None else self._costs

    def scorer(self, fit: Fit, stages: Stages | None = None) -> "IbdPscScorer":
        """Without `stages` the deepest amplification goes first: it settles most benign images.

        Raises `CalibrationError` for a `fit` that is not of this network and this n.
        """
        self._every = None  # the calibration's networks make room for the serving ones
        k, n = int(fit["k"]), int(fit["n"])
        if n != self.n or not 1 <= k <= len(self.order) - n + 1:  # before anything of that size is made
            raise CalibrationError(
                f"IBD-PSC was fitted with k = {k:.4g} and n = {n:.4g}; here n is {self.n}, and k is one of "
                f"1..{len(self.order) - self.n + 1}"
            )
        amplified = self._build(range(k, k + n), self._example)
        return IbdPscScorer(amplified, stages or [[n - 1], *([range(n - 1)] if n > 1 else [])])

    def maxima(self, fit: Fit) -> Floats:
        return np.ones(self.num_classes)

    def data_free_fit(self) -> Fit | None:
        return None  # k comes from benign images

    def fixed_thresholds(self, fit: Fit) -> Floats:
        return np.full(self.num_classes, PAPER_THRESHOLD)


def confidence_in(amplified: Tensor, labels: Tensor) -> Tensor:
    """softmax of variant logits (n, R, K) at `labels` (R,) → (R, n)."""
    chosen = labels[None, :, None].expand(len(amplified), -1, 1)
    return amplified.softmax(2).gather(2, chosen).squeeze(2).T


class IbdPscScorer:
    """A fitted `IbdPsc` with its n networks resident; the base pass gives them what they share."""

    def __init__(self, amplified: Amplified, stages: Stages) -> None:
        self.amplified, self.stages = amplified, stages

    @property
    def engine(self) -> str:
        return self.amplified.engine

    def base(self, images: Tensor) -> BasePass | None:
        """The base pass; the engine may run the first stage along, which every image needs but those that
        a threshold of 1 clears beforehand."""
        logits, forks = self.amplified.base(images, list(self.stages[0]))
        return BasePass.of(images, logits, forks)

    def score(self, base: BasePass, thresholds: Tensor | None = None) -> Scores:
        terms = base.terms(("psc", self.amplified.counts), len(self.amplified.counts))

        def evaluate(which: Sequence[int], rows: Tensor | None) -> Tensor:
            labels = base.labels if rows is None else base.labels[rows]
            return confidence_in(self.amplified.variants(base.forks, which, rows), labels)

        return bounded_mean(terms, self.stages, evaluate, thresholds)
