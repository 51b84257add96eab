"""`.pt2` bundles against the network that was exported."""

from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.export import Dim, ExportedProgram, export

from detectors.amplification import batch_norm_order
from detectors.engine import build_engine
from models.bundle import TorchSpec
from models.contract import pixel_network
from models.errors import ArchitectureError, BundleError
from models.loading import load_network
from models.torch_module import TorchClassifier
from tests.models.artefacts import (
    SIDE,
    SPEC,
    exported_program,
    folded_network,
    pictures,
    small_network,
    write_bundle,
)

ORDER = ("stem.1", "blocks.0.bn1", "blocks.0.bn2", "blocks.1.bn1", "blocks.1.bn2", "blocks.1.shortcut.1")
CONVOLUTIONS = (
    "stem.0", "blocks.0.conv1", "blocks.0.conv2", "blocks.1.conv1", "blocks.1.conv2", "blocks.1.shortcut.0",
)  # fmt: skip


@pytest.fixture(scope="module")
def original() -> nn.Module:
    """Pixels → logits, as the torch backend serves the network."""
    spec = TorchSpec.model_validate({**SPEC, "architecture": "a:b", "weights": "w"})
    return pixel_network(small_network(), spec).eval()


@pytest.fixture(scope="module")
def program() -> ExportedProgram:
    return exported_program(small_network())


def bundle(directory: Path, program: ExportedProgram, **changes: Any) -> TorchClassifier:
    torch.export.save(program, directory / "model.pt2")
    return load_network(write_bundle(directory, "exported", "model.pt2", **changes))


def variants(network: nn.Module, images: Tensor, omega: float = 1.5) -> tuple[Tensor, str]:
    """Logits (L, B, K) of the network with its last 1..L layers amplified, and the engine's name."""
    order = batch_norm_order(network, images)
    engine = build_engine(network, omega, range(1, len(order) + 1), order, images)
    return engine.variants(engine.base(images)[1], range(len(order))), engine.engine


def test_it_is_the_network_that_was_exported(
    tmp_path: Path, original: nn.Module, program: ExportedProgram
) -> None:
    classifier = bundle(tmp_path, program, labels=list("abcde"))
    images = pictures(7)
    assert torch.equal(classifier.logits(images), original(images))
    info = classifier.info
    assert (info.backend, info.access, info.num_classes, info.architecture) == (
        "exported",
        "weights",
        5,
        "model.pt2",
    )
    assert info.labels == tuple("abcde")
    assert classifier.logits(images[:0]).shape == (0, 5)


def test_its_batch_norms_are_amplified_by_the_fork_engine(
    tmp_path: Path, original: nn.Module, program: ExportedProgram
) -> None:
    classifier = bundle(tmp_path, program)
    assert classifier.info.layers is not None
    assert classifier.info.layers.amplified == ORDER
    assert classifier.info.layers.folded == ()
    expected, _ = variants(original, pictures(6))
    found, engine = variants(classifier.network, pictures(6))
    assert engine == "fork"
    assert torch.allclose(found, expected, atol=1e-5)
    assert not torch.allclose(expected[0], expected[5], atol=0.1)  # amplification is no small change here


def test_decomposed_to_core_operators(tmp_path: Path, original: nn.Module, program: ExportedProgram) -> None:
    classifier = bundle(tmp_path, program.run_decompositions())
    assert torch.allclose(classifier.logits(pictures(3)), original(pictures(3)), atol=1e-5)
    found, engine = variants(classifier.network, pictures(3))
    assert engine == "fork"
    assert torch.allclose(found, variants(original, pictures(3))[0], atol=1e-4)


@pytest.mark.parametrize("folded", ["all", list(CONVOLUTIONS)])
def test_folded_batch_norms_are_amplified_where_they_were(
    tmp_path: Path, original: nn.Module, folded: object
) -> None:
    program = exported_program(folded_network(small_network()))
    classifier = bundle(tmp_path, program, folded=folded)
    layers = classifier.info.layers
    assert layers is not None
    assert layers.amplified == layers.folded == CONVOLUTIONS
    assert torch.allclose(classifier.logits(pictures(4)), original(pictures(4)), atol=1e-5)
    found, engine = variants(classifier.network, pictures(4))
    assert engine == "fork"
    assert torch.allclose(found, variants(original, pictures(4))[0], atol=1e-4)


def test_a_bias_alone_is_no_proof_of_folding(tmp_path: Path) -> None:
    layers = bundle(tmp_path, exported_program(folded_network(small_network()))).info.layers
    assert layers is not None
    assert layers.amplified == ()
    assert layers.unsure == CONVOLUTIONS
    assert "6 convolutions with a bias may have swallowed a BatchNorm (stem.0, " in layers.why_none()
    with pytest.raises(BundleError, match=r"'head' is no convolution with a bias; there are: stem\.0"):
        bundle(tmp_path, exported_program(folded_network(small_network())), folded=["head"])


@pytest.mark.parametrize("batch", [1, 3, Dim("batch", min=4, max=6)], ids=["1", "3", "4 to 6"])
def test_other_numbers_of_images_than_it_takes(batch: object, tmp_path: Path, original: nn.Module) -> None:
    classifier = bundle(tmp_path, exported_program(small_network(), batch=batch))
    for count in (1, 2, 3, 7, 13):
        images = pictures(count)
        assert torch.allclose(classifier.logits(images), original(images), atol=1e-5)
    assert classifier.logits(pictures(0)).shape == (0, 5)
    found, _ = variants(classifier.network, pictures(5))
    assert torch.allclose(found, variants(original, pictures(5))[0], atol=1e-5)


class TakesNhwcBytes(nn.Module):
    """What many a network in the wild looks like: (B, H, W, C) in [0, 255] → probabilities."""

    def __init__(self, network: nn.Module) -> None:
        super().__init__()
        self.network = network

    def forward(self, x: Tensor) -> Tensor:
        statistics = SPEC["input"]
        mean, std = torch.tensor(statistics["mean"]), torch.tensor(statistics["std"])
        out: Tensor = self.network(((x / 255 - mean) / std).permute(0, 3, 1, 2)).softmax(1)
        return out


def test_layout_range_and_output_as_the_bundle_says(tmp_path: Path, original: nn.Module) -> None:
    images = torch.rand(2, SIDE, SIDE, 3)
    program = export(TakesNhwcBytes(small_network()), (images,), dynamic_shapes=({0: Dim("batch")},))
    given = {"size": [SIDE, SIDE], "layout": "nhwc", "range": [0, 255]}
    classifier = bundle(tmp_path, program, input=given, output="probabilities")
    assert torch.allclose(
        classifier.logits(pictures(4)).softmax(1), original(pictures(4)).softmax(1), atol=1e-5
    )
    with pytest.raises(ArchitectureError, match=r"of shape \(8, 8, 3\), and `input` .* \(3, 8, 8\)"):
        bundle(tmp_path, program, input={**given, "layout": "nchw"}, output="probabilities")
    with pytest.raises(ArchitectureError, match="say `output: probabilities`"):
        bundle(tmp_path, program, input=given)


class Two(nn.Module):
    def forward(self, x: Tensor, y: Tensor) -> Tensor:
        return (x + y).mean((2, 3))


def test_programs_that_are_no_classifier(tmp_path: Path) -> None:
    images = pictures(2)
    with pytest.raises(ArchitectureError, match=r"model\.pt2: the program has 2 inputs and 1 outputs"):
        bundle(tmp_path, export(Two(), (images, images)))
    with pytest.raises(ArchitectureError, match=r"takes torch\.float16; export it in float32"):
        bundle(tmp_path, export(small_network().half(), (images.half(),)))
    with pytest.raises(ArchitectureError, match=r"exported in train mode: call \.eval\(\)"):
        bundle(tmp_path, exported_program(small_network().train()))
    with pytest.raises(ArchitectureError, match="labels: 2 names for the network's 5 classes"):
        bundle(tmp_path, exported_program(small_network()), labels=["a", "b"])


def test_the_digest_covers_the_file(tmp_path: Path, program: ExportedProgram) -> None:
    first = bundle(tmp_path, program).info.digest
    assert bundle(tmp_path, program, version="2", labels=list("abcde")).info.digest == first
    assert bundle(tmp_path, program, folded=[]).info.digest != first
    assert bundle(tmp_path, exported_program(small_network(seed=1))).info.digest != first
