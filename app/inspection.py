"""What is this model, and which detectors can guard it? The facts behind `triggerwall inspect`."""

from typing import get_args

from app.assembly import build_detectors, choose_device
from app.settings import DetectorName, Settings
from detectors.base import DetectorError
from detectors.ibd_psc import IbdPsc
from models.loading import load_bundle

__all__ = ["inspect_bundle"]

DETECTORS: tuple[DetectorName, ...] = get_args(DetectorName)
Fact = tuple[str, str]


def inspect_bundle(settings: Settings) -> tuple[list[Fact], bool]:
    """Facts as (what, value), and whether any detector can guard the model. Raises `ModelError`."""
    classifier = load_bundle(settings.bundle, choose_device(settings.device))
    info = classifier.info
    network = classifier.network
    parameters = f", {sum(p.numel() for p in network.parameters()):,} parameters" if network else ""
    facts = [
        ("model", f"{info.name} {info.version}"),
        ("digest", info.digest),
        ("architecture", f"{info.architecture} ({info.backend}){parameters}"),
        ("input", f"{info.channels} × {info.size[0]} × {info.size[1]}, {info.interpolation}"),
        ("classes", f"{info.num_classes}" + (f": {', '.join(info.labels)}" if info.labels else "")),
        ("access", info.access),
    ]
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
