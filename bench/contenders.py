"""Everything that is raced: one callable each, from a batch of pixels to logits or scores."""

import copy
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import torch
from torch import Tensor, nn

from bench.baselines import DeepCopies, Stacked
from bench.subjects import Subject
from bench.traffic import KINDS
from detectors.amplification import Amplified, Copies
from detectors.engine import build_engine
from detectors.ibd_psc import IbdPsc, IbdPscScorer
from lab.backends import open_backend

__all__ = [
    "EAGER", "EAGER_FAST", "EARLY", "EARLY_FAST", "FULL", "FULL_FAST", "NAMES", "Contender", "Workshop",
]  # fmt: skip

EAGER, EAGER_FAST = "undefended", "undefended, fast"
FULL, FULL_FAST = "engine", "engine, fast"
EARLY = {kind: f"early exit, {kind}" for kind in KINDS}
EARLY_FAST = {kind: f"{name}, fast" for kind, name in EARLY.items() if kind != "poisoned"}
GRAPHS = ("exported", "onnx")  # other backends, each undefended and with the full score
PLAIN_GRAPH = {kind: f"{kind}, undefended" for kind in GRAPHS}
SCORED_GRAPH = {kind: f"{kind} engine" for kind in GRAPHS}
BASELINES = ("copies", "stacked", "deep copies")
NAMES = (
    EAGER, *BASELINES, FULL, *EARLY.values(), EAGER_FAST, FULL_FAST, *EARLY_FAST.values(),
    *PLAIN_GRAPH.values(), *SCORED_GRAPH.values(),
)  # fmt: skip
UNTRAINED = "needs a trained network and real images: give --bundle and --data"


@dataclass(frozen=True)
class Contender:
    """`call` maps images (B, C, H, W) to logits (B, K), undefended, or to scores (B,). It is fed `traffic`,
    and compared with `baseline`, the undefended network in the same arithmetic. `holds` owns its weights."""

    name: str
    call: Callable[[Tensor], Tensor]
    holds: Any
    engine: str = ""
    baseline: str = EAGER
    traffic: str = "benign"


@dataclass
class Workshop:
    """Builds the contenders of one subject; the contenders in one arithmetic share one engine."""

    subject: Subject
    dtype: torch.dtype = torch.bfloat16
    _engines: dict[bool, Amplified] = field(default_factory=dict)

    def engine(self, fast: bool) -> Amplified:
        """The engine as it is served: exact, or channels_last, with BatchNorm folded and in `dtype`."""
        if not fast and self.subject.engine is not None:
            return self.subject.engine
        if fast not in self._engines:
            subject = self.subject
            # channels_last changes the network it is given, which the others are measured with.
            network = copy.deepcopy(subject.network) if fast else subject.network
            options: dict[str, Any] = {"dtype": self.dtype, "channels_last": True, "fold": True}
            self._engines[fast] = build_engine(
                network, subject.omega, subject.counts, subject.order, subject.pools["benign"][:2],
                **(options if fast else {}),
            )  # fmt: skip
        return self._engines[fast]

    def build(self, name: str) -> Contender:
        """Raises ValueError where the subject lacks what the contender needs, and whatever torch raises
        where it cannot run the network that way."""
        fast = name.endswith(", fast")
        baseline = EAGER_FAST if fast else EAGER
        if name == EAGER:
            network = self.subject.network
            return Contender(name, undefended(network), network, "eager")
        if name == EAGER_FAST:
            engine = self.engine(True)
            return Contender(name, lambda images: engine.base(images)[0], engine, engine.engine, baseline)
        for kind in GRAPHS:
            if name in (PLAIN_GRAPH[kind], SCORED_GRAPH[kind]):
                return self._graph(name, kind, scored=name == SCORED_GRAPH[kind])
        if name in BASELINES:
            amplified = self._baseline(name)
            return Contender(name, scoring(amplified), amplified, amplified.engine)
        engine = self.engine(fast)
        if name in (FULL, FULL_FAST):
            return Contender(name, scoring(engine), engine, engine.engine, baseline)
        kind = next(kind for kind in KINDS if name.removesuffix(", fast") == EARLY[kind])
        rule = self.subject.rule
        if rule is None or kind not in self.subject.pools:
            raise ValueError(
                UNTRAINED if rule is None else "the bundle's training.json names no known attack"
            )
        call = scoring(engine, rule.stages, rule.thresholds)
        return Contender(name, call, engine, engine.engine, baseline, kind)

    def _graph(self, name: str, kind: str, *, scored: bool) -> Contender:
        """The network exported for another backend. What ONNX Runtime computes and holds is not counted."""
        subject = self.subject
        if subject.device.type != "cpu":
            raise ValueError("exported networks are raced on the CPU only")
        with TemporaryDirectory() as folder:
            classifier = open_backend(kind, subject.network, subject.recipe.shape(), Path(folder))
        if not scored:
            return Contender(name, classifier.logits, classifier, kind)
        layers = len(subject.order)
        fit = {"k": subject.k, "n": subject.n}
        detector = IbdPsc(classifier, subject.pools["benign"][:2], omega=subject.omega, n=subject.n)
        if len(detector.order) != layers:
            raise ValueError(f"the exporter kept {len(detector.order)} of {layers} BatchNorm layers in sight")
        scorer = detector.scorer(fit)
        return Contender(name, scoring(scorer.amplified), scorer.amplified, scorer.engine)

    def _baseline(self, name: str) -> Amplified:
        build: Callable[..., Amplified] = {"copies": Copies, "stacked": Stacked, "deep copies": DeepCopies}[
            name
        ]
        subject = self.subject
        return build(subject.network, subject.omega, subject.counts, subject.order)


def undefended(network: nn.Module) -> Callable[[Tensor], Tensor]:
    @torch.inference_mode()
    def call(images: Tensor) -> Tensor:
        logits: Tensor = network(images)
        return logits

    return call


def scoring(
    amplified: Amplified, stages: Sequence[Sequence[int]] = (), thresholds: Tensor | None = None
) -> Callable[[Tensor], Tensor]:
    """PSC of every image; with `thresholds` (K,) only as far as the verdict needs it."""
    scorer = IbdPscScorer(amplified, stages or [list(range(len(amplified.counts)))])

    @torch.inference_mode()
    def call(images: Tensor) -> Tensor:
        base = scorer.base(images)
        assert base is not None
        limits = None if thresholds is None else thresholds[base.labels]
        return scorer.score(base, limits).values

    return call
