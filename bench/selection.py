"""From the options of the command to subjects and plans."""

from dataclasses import dataclass, field
from pathlib import Path

import torch

from bench.contenders import NAMES
from bench.recipes import NETWORKS, OMEGA, Recipe, noise
from bench.runner import Plan, contenders_named
from bench.subjects import Subject, learn, make_subject
from bench.timing import Budget
from bench.traffic import DEMO_BUNDLE, DEMO_DATA, bundle_recipe, open_traffic
from detectors.engine import build_engine
from lab.data import LabError

__all__ = ["BUNDLE", "Options", "choose", "plan_for", "subject_of"]

BUNDLE = "bundle"
BATCHES = (1, 8, 32, 128)
LARGE = 100  # pixels a side: from here on the default batches are 1 and 8
REFERENCE = "zoo:resnet18"  # swept, and weighed for memory: the targets are stated for it


@dataclass(frozen=True)
class Options:
    """What the command was told; None or empty is the default."""

    quick: bool = False
    only: tuple[str, ...] = ()
    batches: tuple[int, ...] = ()
    contenders: tuple[str, ...] = ()
    bundle: Path | None = None
    data: str | None = None
    k: int | None = None
    n: int = 5
    omega: float = OMEGA
    alpha: float | None = None
    seconds: float | None = None
    memory: bool | None = None
    sweep_time: bool = False
    dtype: torch.dtype = torch.bfloat16
    device: torch.device = field(default_factory=lambda: torch.device("cpu"))


def choose(options: Options) -> list[Recipe]:
    """The networks to run. A bundle takes the place of the random network of its architecture and size.

    Raises `LabError` for a name that is none.
    """
    if unknown := set(options.only) - {*NETWORKS, BUNDLE}:
        raise LabError(f"there is no network {min(unknown)!r}; there are {', '.join(NETWORKS)}, {BUNDLE}")
    if options.bundle is not None and options.data is None:
        raise LabError("--bundle needs --data: the images that its traffic is made of")
    bundle = bundle_recipe(options.bundle or DEMO_BUNDLE)
    named = options.only or ("resnet20", "resnet18", *([] if options.quick else ["resnet50"]), BUNDLE)
    random = [NETWORKS[name] for name in named if name != BUNDLE]
    if BUNDLE not in named:
        return random
    same = (bundle.architecture, bundle.shape())
    return [*(r for r in random if (r.architecture, r.shape()) != same), bundle]


def subject_of(recipe: Recipe, options: Options) -> Subject:
    """The network and its images: a bundle's own traffic, or noise where the weights are random too."""
    device = options.device
    if recipe.bundle is None:
        pools = {"benign": noise(max((8, *batches_of(recipe, options))), recipe.shape()).to(device)}
        return make_subject(recipe, device, pools, n=options.n, omega=options.omega)
    data = options.data or DEMO_DATA
    calibration, pool = (100, 100) if options.quick else (400, 300)
    traffic = open_traffic(recipe, data, calibration, pool)
    pools = {kind: images.to(device) for kind, images in traffic.items() if kind != "calibration"}
    subject = make_subject(recipe, device, pools, k=options.k, n=options.n, omega=options.omega)
    benign = traffic["calibration"].to(device)
    engine = build_engine(subject.network, subject.omega, subject.counts, subject.order, benign[:2])
    with torch.inference_mode():
        classes = int(subject.network(benign[:1]).shape[1])
    subject.engine = engine
    subject.rule = learn(engine, benign, classes, options.alpha)
    limit = "the paper's T = 0.9" if options.alpha is None else f"by class at budget {options.alpha:g}"
    stages = "; ".join(" + ".join(str(subject.counts[i]) for i in stage) for stage in subject.rule.stages)
    subject.notes.append(f"thresholds: {limit}; variants are evaluated in the order {stages}")
    return subject


def batches_of(recipe: Recipe, options: Options) -> tuple[int, ...]:
    if options.batches:
        return tuple(dict.fromkeys(options.batches))
    if options.quick:
        return (1,) if recipe.architecture == REFERENCE else (1, 8)
    return BATCHES[:2] if max(recipe.size) >= LARGE else BATCHES


def plan_for(recipe: Recipe, options: Options) -> Plan:
    """What to measure of one network; the reference network is swept, and weighed unless it is quick."""
    batches = batches_of(recipe, options)
    reference = recipe.architecture == REFERENCE
    weigh = (reference and not options.quick) if options.memory is None else options.memory
    middle = 32 if 32 in batches else batches[-1]
    seconds = options.seconds if options.seconds is not None else (1.0 if options.quick else 8.0)
    return Plan(
        batches=batches,
        contenders=contenders_named(options.contenders) if options.contenders else NAMES,
        budget=Budget(seconds=seconds),
        memory=middle if weigh else None,
        sweep=reference,
        sweep_batch=min(8, max(batches)) if options.sweep_time else None,
        dtype=options.dtype,
    )
