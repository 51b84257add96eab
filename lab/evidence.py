"""How far a model's benign predictions collapse into one class: figures to compare other models with.

Benign models collapse too, so a gateway's report means little without these. The settings are the papers'.
"""

import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from rich.table import Table

from detectors.base import UnsupportedNetwork
from detectors.ibd_psc import IbdPsc
from detectors.scale_up import ScaleUp
from lab.data import ImageSet, LabError
from lab.tabular import slim_table
from models.loading import load_network
from models.torch_module import TorchClassifier

__all__ = ["Evidence", "evidence_table", "measure_evidence", "merge"]

BATCH = 250


@dataclass(frozen=True)
class Evidence:
    """One model's collapse; `backdoored` is None where its training is not known. `collapse` holds what
    `detectors.behaviour.collapse` gives: amplification as IBD-PSC uses it, and every scale."""

    model: str
    digest: str
    backdoored: bool | None
    training: str
    images: str
    count: int
    channels: int
    benign_accuracy: float
    collapse: list[dict[str, Any]]


@torch.inference_mode()
def measure_evidence(
    bundle: Path, test: ImageSet, source: str, count: int, seed: int, device: torch.device
) -> Evidence:
    """Measure the model in `bundle` on `count` images of `test`; `source` names them. Raises `LabError`."""
    classifier = load_network(bundle, device)
    if classifier.info.channels != test.images.shape[1]:
        raise LabError(f"{bundle} takes {classifier.info.channels}-channel images: give --channels")
    order = torch.randperm(len(test), generator=torch.Generator().manual_seed(seed))[:count]
    chosen = test.take(order)
    batches = [part.to(device).float() / 255 for part in chosen.images.split(BATCH)]
    predicted = torch.cat([classifier.logits(batch) for batch in batches]).argmax(1).cpu().numpy()
    backdoored, training = _training(bundle)
    return Evidence(
        model=classifier.info.name,
        digest=classifier.info.digest,
        backdoored=backdoored,
        training=training,
        images=Path(source).name,
        count=len(chosen),
        channels=classifier.info.channels,
        benign_accuracy=float((predicted == chosen.labels.numpy()).mean()),
        collapse=_collapse(classifier, batches, predicted),
    )


def _collapse(
    classifier: TorchClassifier, batches: Sequence[torch.Tensor], predicted: np.ndarray
) -> list[dict[str, Any]]:
    scaling = ScaleUp(classifier)
    evidence = torch.cat([scaling.measure(batch).cpu() for batch in batches]).double().numpy()
    found: list[dict[str, Any]] = scaling.describe(evidence, predicted, {})["collapse"]
    try:
        psc = IbdPsc(classifier, batches[0][:2])
    except UnsupportedNetwork:  # no BatchNorm: there is nothing to amplify
        return found
    evidence = torch.cat([psc.measure(batch).cpu() for batch in batches]).double().numpy()
    fit = psc.fit(evidence, predicted, None)
    deepest = fit["k"] + fit["n"] - 1
    return [psc.describe(evidence, predicted, fit)["collapse"][deepest - 1], *found]


def _training(bundle: Path) -> tuple[bool | None, str]:
    """Whether the model was trained with a backdoor, and how it was trained, from its training.json."""
    record = bundle / "training.json"
    if not record.exists():
        return None, "not known"
    found = json.loads(record.read_text(encoding="utf-8"))
    settings = found["settings"]
    attack = settings["attack"]
    epochs = f"{settings['epochs']} epoch{'s' if settings['epochs'] > 1 else ''}"
    how = f"{settings['architecture']}, {epochs} on {found.get('data', 'unnamed images')}"
    return attack is not None, how + (f", {attack} to label {settings['target']}" if attack else ", benign")


def merge(path: Path, found: Sequence[Evidence], command: str) -> None:
    """Write `found` into the JSON file `path`, beside what is there of other models.

    Raises `LabError` where the file is of another kind.
    """
    kept: dict[str, Any] = {"commands": [], "models": []}
    if path.exists():
        try:
            kept = json.loads(path.read_text(encoding="utf-8"))
            others = [m for m in kept["models"] if m["digest"] not in {each.digest for each in found}]
            commands = [each for each in kept["commands"] if each != command]
        except (ValueError, KeyError, TypeError) as error:
            raise LabError(f"{path} holds no figures of models: name another file") from error
    else:
        others, commands = [], []
    kept = {"commands": [*commands, command], "models": [*others, *map(asdict, found)]}
    path.write_text(json.dumps(kept, indent=1) + "\n", encoding="utf-8")


def evidence_table(found: Sequence[Evidence]) -> Table:
    """One line per model: the share of benign images in the sink, and which label it is."""
    strengths = list(dict.fromkeys((c["by"], c["strength"]) for each in found for c in each.collapse))
    scales = sorted(strength for by, strength in strengths if by == "scaling")
    table = slim_table(
        "", "model", "training", "BA", "amplified", *[f"pixels ×{scale:g}" for scale in scales]
    )
    for each in found:
        by = {c["strength"]: c for c in each.collapse if c["by"] == "scaling"}
        amplified = next((c for c in each.collapse if c["by"] == "amplification"), None)
        cells = [amplified, *[by.get(scale) for scale in scales]]
        table.add_row(each.model, each.training, f"{each.benign_accuracy:.3f}", *map(_cell, cells))
    return table


def _cell(collapse: dict[str, Any] | None) -> str:
    return "—" if collapse is None else f"{collapse['share']:.2f} → {collapse['label']}"
