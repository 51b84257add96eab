"""What is served: a bundle on disk, benign images to calibrate on, and images to send."""

import io
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from safetensors.torch import save_file
from torch import Tensor

from bench.recipes import NETWORKS, noise
from bench.timing import Spread, spread, synchronise
from bench.traffic import bundle_recipe, open_traffic
from models.bundle import InputSpec, TorchSpec, write_spec
from models.loading import load_network

__all__ = ["Subject", "random_subject", "single_inference", "trained_subject"]

CPU = torch.device("cpu")


@dataclass(frozen=True)
class Subject:
    """`label` names it in tables; images are PNG files."""

    label: str
    bundle: Path
    calibration: Sequence[bytes]
    traffic: Sequence[bytes]


def random_subject(network: str, directory: Path, calibration: int, traffic: int) -> Subject:
    """A network of `bench.recipes` with random weights, written to `directory`, fed with noise."""
    recipe = NETWORKS[network]
    module = recipe.build(CPU)
    directory.mkdir(parents=True, exist_ok=True)
    save_file(module.state_dict(), directory / "weights.safetensors")
    spec = TorchSpec(
        name=recipe.label, version="random", architecture=recipe.architecture, weights="weights.safetensors",
        input=InputSpec.model_validate({"size": recipe.size, "channels": recipe.channels}),
    )  # fmt: skip
    write_spec(spec, directory)
    images = as_pngs(noise(calibration + traffic, recipe.shape()))
    return Subject(f"{recipe.label}, random weights", directory, images[:calibration], images[calibration:])


def trained_subject(bundle: Path, data: str, calibration: int, traffic: int) -> Subject:
    """A bundle and benign images of its own data. Raises `LabError`, or a `models` error."""
    recipe = bundle_recipe(bundle)
    pools = open_traffic(recipe, data, calibration, traffic)
    return Subject(recipe.label, bundle.resolve(), as_pngs(pools["calibration"]), as_pngs(pools["benign"]))


def as_pngs(images: Tensor) -> list[bytes]:
    """Images (N, C, H, W) in [0, 1] as PNG files."""
    pixels = (images * 255).round().byte().permute(0, 2, 3, 1).numpy()
    return [_png(each[..., 0] if each.shape[-1] == 1 else each) for each in pixels]


def _png(pixels: "np.ndarray[tuple[int, ...], np.dtype[np.uint8]]") -> bytes:
    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, "PNG")
    return buffer.getvalue()


@torch.inference_mode()
def single_inference(subject: Subject, rounds: int = 30) -> Spread:
    """Seconds of one image through the bare network, one at a time."""
    classifier = load_network(subject.bundle, CPU)
    image = torch.rand(1, classifier.info.channels, *classifier.info.size)
    seconds = []
    for _ in range(rounds + 3):
        started = time.perf_counter()
        classifier.network(image)
        synchronise(CPU)
        seconds.append(time.perf_counter() - started)
    return spread(seconds[3:])
