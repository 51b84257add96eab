"""Everything that is raced: one callable each, from a batch of pixels to logits or scores."""

import copy
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, Literal

import torch
from torch import Tensor, nn

from bench.baselines import DeepCopies, Stacked
from bench.subjects import Subject
from bench.traffic import KINDS
from detectors.amplification import Amplified, Copies
from detectors.engine import build_engine
from detectors.ibd_psc import IbdPsc, IbdPscScorer
from detectors.packing import pack_network
from lab.backends import open_backend

__all__ = [
    "EAGER", "EAGER_FAST", "EARLY", "EARLY_FAST", "EARLY_PACKED", "FULL", "FULL_FAST", "FULL_PACKED", "NAMES",
    "Contender", "Style", "Workshop",
]  # fmt: skip

Style = Literal["eager", "packed", "fast"]
"""`packed`: BatchNorm folded and weights packed, as a gateway on a CPU serves; `fast`: channels_last, folded
and reduced precision."""
EAGER, EAGER_PACKED, EAGER_FAST = "undefended", "undefended, packed", "undefended, fast"
FULL, FULL_PACKED, FULL_FAST = "engine", "engine, packed", "engine, fast"
EARLY = {kind: f"early exit, {kind}" for kind in KINDS}
EARLY_PACKED = {kind: f"{name}, packed" for kind, name in EARLY.items() if kind != "poisoned"}
EARLY_FAST = {kind: f"{name}, fast" for kind, name in EARLY.items() if kind != "poisoned"}
BASELINE_OF: dict[Style, str] = {"eager": EAGER, "packed": EAGER_PACKED, "fast": EAGER_FAST}
GRAPHS = ("exported", "onnx")  # other backends, each undefended and with the full score
PLAIN_GRAPH = {kind: f"{kind}, undefended" for kind in GRAPHS}
SCORED_GRAPH = {kind: f"{kind} engine" for kind in GRAPHS}
BASELINES = ("copies", "stacked", "deep copies")
NAMES = (
    EAGER, *BASELINES, FULL, *EARLY.values(), EAGER_PACKED, FULL_PACKED, *EARLY_PACKED.values(),
    EAGER_FAST, FULL_FAST, *EARLY_FAST.values(),
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
    _engines: dict[Style, Amplified] = field(default_factory=dict)

    def engine(self, style: Style) -> Amplified:
        """The engine in that arithmetic. Raises `UnsupportedNetwork` where weights cannot be packed."""
        if style == "eager" and self.subject.engine is not None:
            return self.subject.engine
        if style not in self._engines:
            subject, example = self.subject, self.subject.pools["benign"][:2]
            network, options = subject.network, dict[str, Any]()
            if style == "packed":
                options = {"traced": pack_network(network, example).trace}
            if style == "fast":
                # channels_last changes the network it is given, which the others are measured with.
                network = copy.deepcopy(network)
                options = {"dtype": self.dtype, "channels_last": True, "fold": True}
            self._engines[style] = build_engine(
                network, subject.omega, subject.counts, subject.order, example, **options
            )
        return self._engines[style]

    def build(self, name: str) -> Contender:
        """Raises ValueError where the subject lacks what the contender needs, and whatever torch raises
        where it cannot run the network that way."""
        plain, _, suffix = name.rpartition(", ")
        style: Style = suffix if suffix in ("packed", "fast") else "eager"  # type: ignore[assignment]
        plain, baseline = plain if style != "eager" else name, BASELINE_OF[style]
        if name == EAGER:
            network = self.subject.network
            return Contender(name, undefended(network), network, "eager")
        if plain == EAGER:
            engine = self.engine(style)
            return Contender(name, lambda images: engine.base(images)[0], engine, engine.engine, baseline)
        for kind in GRAPHS:
            if name in (PLAIN_GRAPH[kind], SCORED_GRAPH[kind]):
                return self._graph(name, kind, scored=name == SCORED_GRAPH[kind])
        if name in BASELINES:
            amplified = self._baseline(name)
            return Contender(name, scoring(amplified), amplified, amplified.engine)
        engine = self.engine(style)
        if plain == FULL:
            return Contender(name, scoring(engine), engine, engine.engine, baseline)
        kind = next(kind for kind in KINDS if plain == EARLY[kind])
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
