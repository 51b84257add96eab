"""One classifier through every backend: do they give the same scores and the same verdicts?"""

import warnings
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from rich.progress import track
from rich.table import Table
from torch import Tensor, nn
from torch.export import Dim, ExportedProgram, export

from detectors.base import Detector
from detectors.calibration import DetectorCalibration, calibrate
from lab.guard import limits, measure
from lab.judge import Study, open_detectors
from lab.tabular import slim_table
from models.base import Classifier
from models.bundle import BundleSpec, ExportedSpec, InputSpec, OnnxSpec, TorchScriptSpec
from models.loading import open_spec

__all__ = ["BACKENDS", "Agreement", "agreement_table", "compare", "open_backend"]


@dataclass(frozen=True)
class Agreement:
    """Of one detector behind one backend, against the original: the largest difference of a score, and how
    many of `images` have another verdict or another predicted label."""

    backend: str
    detector: str
    engine: str
    difference: float
    verdicts: int
    predictions: int
    images: int


def open_backend(kind: str, network: nn.Module, shape: tuple[int, int, int], folder: Path) -> Classifier:
    """`network`, pixels (B, *shape) in [0, 1] → logits, exported into `folder` for the backend `kind` of
    `BACKENDS`, and loaded from there."""
    given = InputSpec.model_validate({"size": shape[1:], "channels": shape[0]})
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # TorchScript and its ONNX exporter are deprecated, not gone
        spec = BACKENDS[kind](network, torch.rand(2, *shape), folder, {"name": "exported", "input": given})
    return open_spec(spec, folder, trusted=True)


def _program(network: nn.Module, images: Tensor) -> ExportedProgram:
    return export(network, (images,), dynamic_shapes=({0: Dim("batch")},))


def _exported(network: nn.Module, images: Tensor, folder: Path, common: dict[str, Any]) -> BundleSpec:
    torch.export.save(_program(network, images), folder / "model.pt2")
    return ExportedSpec(weights="model.pt2", **common)


def _torchscript(network: nn.Module, images: Tensor, folder: Path, common: dict[str, Any]) -> BundleSpec:
    torch.jit.save(torch.jit.trace(network, images), folder / "model.pt")
    return TorchScriptSpec(weights="model.pt", **common)


def _onnx(network: nn.Module, images: Tensor, folder: Path, common: dict[str, Any]) -> BundleSpec:
    torch.onnx.export(_program(network, images), (), folder / "model.onnx", dynamo=True, verbose=False)
    return OnnxSpec(weights="model.onnx", **common)


def _onnx_by_ones(network: nn.Module, images: Tensor, folder: Path, common: dict[str, Any]) -> BundleSpec:
    torch.onnx.export(network, (images[:1],), folder / "one.onnx", dynamo=False)
    return OnnxSpec(weights="one.onnx", **common)


BACKENDS: dict[str, Callable[[nn.Module, Tensor, Path, dict[str, Any]], BundleSpec]] = {
    "exported": _exported,
    "torchscript": _torchscript,
    "onnx": _onnx,
    "onnx, batch of 1": _onnx_by_ones,
}
"""What exports a network for example images (2, C, H, W) into a folder, and says what it wrote."""


Judged = dict[str, tuple[np.ndarray, np.ndarray, str]]
"""By detector: scores and verdicts of all images, and the engine."""


def compare(study: Study, folder: Path, alpha: float) -> list[Agreement]:
    """Calibrate the original network, and judge the study's benign and triggered images with its fits and
    thresholds through every backend. Nothing stops early: the scores are exact."""
    sample = measure(study, study.calibration.images, "benign images")
    parts = {each.name: calibrate(each, sample, alpha) for each in study.detectors}
    images = study.batches(torch.cat([study.benign, study.poisoned]))
    expected, labels = _judge(study.classifier, study.detectors, parts, images, "the original")
    rows = []
    info = study.classifier.info
    for backend in BACKENDS:
        shape = (info.channels, *info.size)
        classifier = open_backend(backend, study.classifier.network, shape, folder)
        names = [name for name in parts if name != "psc" or classifier.info.access == "weights"]
        if not names:
            continue
        detectors = open_detectors(classifier, images[0][:2], names)
        found, predicted = _judge(classifier, detectors, parts, images, backend)
        for name, (scores, verdicts, engine) in found.items():
            rows.append(
                Agreement(
                    backend, name, engine,
                    float(np.abs(scores - expected[name][0]).max()),
                    int((verdicts != expected[name][1]).sum()),
                    int((predicted != labels).sum()),
                    len(labels),
                )
            )  # fmt: skip
    return rows


@torch.inference_mode()
def _judge(
    classifier: Classifier,
    detectors: tuple[Detector, ...],
    parts: Mapping[str, DetectorCalibration],
    images: list[Tensor],
    what: str,
) -> tuple[Judged, np.ndarray]:
    thresholds = limits(parts, classifier.num_classes)
    labels = np.concatenate([classifier.logits(batch).argmax(1).numpy() for batch in images])
    judged: Judged = {}
    for detector in track(detectors, f"judging through {what}", transient=True):
        fit = parts[detector.name].fit
        evidence = np.concatenate([detector.measure(batch).double().numpy() for batch in images])
        scores = detector.score(evidence, labels, fit)
        engine = detector.scorer(fit).engine
        judged[detector.name] = scores, ~(scores <= thresholds[detector.name][labels]), engine
    return judged, labels


def agreement_table(name: str, rows: list[Agreement]) -> Table:
    """One line per backend and detector."""
    title = f"{name}: against the original network, {rows[0].images} images"
    headings = ("backend", "detector", "engine", "largest difference of a score", "other verdicts")
    table = slim_table(title, *headings)
    for row in rows:
        table.add_row(
            row.backend, row.detector, row.engine, f"{row.difference:.1e}",
            f"{row.verdicts}" + (f", {row.predictions} other labels" if row.predictions else ""),
        )  # fmt: skip
    return table
