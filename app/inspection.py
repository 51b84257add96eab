"""What is this model, and which detectors can guard it? The facts behind `triggerwall inspect`."""

from collections.abc import Sequence
from typing import get_args

from app.assembly import build_detectors, open_classifier
from app.settings import DetectorName, Settings
from detectors.base import DetectorError
from detectors.ibd_psc import IbdPsc
from models.bundle import InputSpec, read_spec

__all__ = ["inspect_bundle"]

DETECTORS: tuple[DetectorName, ...] = get_args(DetectorName)
Fact = tuple[str, str]


def what_it_sees(spec: InputSpec) -> str:
    """What becomes of pixels in [0, 1] before they reach the network, for people."""
    statistics = f"normalised by mean {_row(spec.mean)} and std {_row(spec.std)}" if spec.mean else ""
    facts = [
        statistics or f"pixels in [0, {spec.range[1]}]",
        f"times {spec.range[1]}" if statistics and spec.range[1] != 1 else "",
        spec.layout.upper(),
        spec.colours.upper() if spec.channels == 3 else "grey",
    ]
    return ", ".join(fact for fact in facts if fact)


def _row(values: Sequence[float] | None) -> str:
    return " ".join(f"{value:g}" for value in values or ())


def inspect_bundle(settings: Settings) -> tuple[list[Fact], bool]:
    """Facts as (what, value), and whether any detector can guard the model. Raises `ModelError`."""
    classifier = open_classifier(settings)
    info, spec = classifier.info, read_spec(settings.bundle)
    network = classifier.network
    parameters = f", {sum(p.numel() for p in network.parameters()):,} parameters" if network else ""
    facts = [
        ("model", f"{info.name} {info.version}"),
        ("digest", info.digest),
        ("backend", info.backend),
        ("architecture", f"{info.architecture}{parameters}"),
        ("input", f"{info.channels} × {info.size[0]} × {info.size[1]}, {info.interpolation}"),
        ("the network sees", what_it_sees(spec.input)),
        ("the network returns", spec.output),
        ("classes", f"{info.num_classes}" + (f": {', '.join(info.labels)}" if info.labels else "")),
        ("access", info.access),
    ]
    if info.layers is not None:
        facts.append(("layers", info.layers.obstacle or info.layers.summary()))
    guarded = False
    for name in DETECTORS:
        try:
            detector = build_detectors(classifier, settings.model_copy(update={"detectors": (name,)}))[0]
        except DetectorError as error:
            facts.append((name, f"[red]no[/]: {error}"))
            continue
        guarded = True
        layers = f", {len(detector.order)} BatchNorm layers" if isinstance(detector, IbdPsc) else ""
        facts.append((name, f"[green]yes[/]{layers}"))
    return facts, guarded
