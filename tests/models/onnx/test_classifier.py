"""ONNX bundles in ONNX Runtime against the network that was exported."""

import copy
import warnings
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from detectors.ibd_psc import IbdPsc
from models.base import Classifier
from models.bundle import TorchSpec
from models.contract import pixel_network
from models.errors import ArchitectureError, BundleError, InputError, WeightsError
from models.loading import load_bundle, load_network
from models.torch_module import TorchClassifier, info_of
from tests.models.artefacts import (
    CLASSES,
    SIDE,
    SPEC,
    exported_program,
    folded_network,
    pictures,
    small_network,
    write_bundle,
)  # fmt: skip

onnx = pytest.importorskip("onnx")
find_layers = pytest.importorskip("models.onnx.amplify").find_layers

CONVOLUTIONS = (
    "stem.0", "blocks.0.conv1", "blocks.0.conv2", "blocks.1.conv1", "blocks.1.conv2", "blocks.1.shortcut.0",
)  # fmt: skip
NORMS = ("stem.1", "blocks.0.bn1", "blocks.0.bn2", "blocks.1.bn1", "blocks.1.bn2", "blocks.1.shortcut.1")
SCORES = 1e-5  # tolerance of PSC, of numbers in [0, 1]


@pytest.fixture(scope="module")
def original() -> TorchClassifier:
    """As the torch backend serves the network."""
    spec = TorchSpec.model_validate({**SPEC, "architecture": "a:b", "weights": "w"})
    network = pixel_network(small_network(), spec)
    return TorchClassifier(network, info_of(spec, "0", "a:b", CLASSES), torch.device("cpu"))


@pytest.fixture(scope="module")
def current(tmp_path_factory: pytest.TempPathFactory) -> Any:
    """The model as PyTorch's exporter writes it."""
    path = tmp_path_factory.mktemp("onnx") / "model.onnx"
    torch.onnx.export(exported_program(small_network()), (), path, dynamo=True, verbose=False)
    return onnx.load(path)


def by_torchscript(network: nn.Module, *, batch: int | None = None, **options: Any) -> Any:
    """The model as PyTorch's older exporter writes it, which is quick and can leave BatchNorms alone."""
    path = options.pop("path")
    images = options.pop("images", torch.rand(batch or 2, 3, SIDE, SIDE))
    axes = {} if batch else {"dynamic_axes": {"images": {0: "batch"}}}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)
        torch.onnx.export(network, (images,), path, dynamo=False, input_names=["images"], **axes, **options)
    return onnx.load(path)


def bundle(directory: Path, model: Any, **changes: Any) -> Classifier:
    onnx.save(model, directory / "model.onnx")
    return load_bundle(write_bundle(directory, "onnx", "model.onnx", **changes))


def evidence(classifier: Classifier, images: Tensor) -> Tensor:
    """Every confidence and label that IbdPsc measures."""
    return IbdPsc(classifier, images[:2]).measure(images)


def layers(classifier: Classifier) -> tuple[tuple[str, ...], tuple[str, ...], tuple[str, ...]]:
    found = classifier.info.layers
    assert found is not None
    return found.amplified, found.folded, found.unsure


def test_it_is_the_network_that_was_exported(tmp_path: Path, original: TorchClassifier, current: Any) -> None:
    classifier = bundle(tmp_path, current, labels=list("abcde"))
    assert torch.allclose(classifier.logits(pictures(7)), original.logits(pictures(7)), atol=1e-5)
    info = classifier.info
    assert (info.backend, info.access, info.num_classes) == ("onnx", "weights", 5)
    assert info.architecture.startswith("model.onnx, opset ")
    assert classifier.network is None
    assert classifier.logits(pictures(0)).shape == (0, 5)
    with pytest.raises(InputError, match=r"takes torch\.float32 of shape \(B, 3, 8, 8\)"):
        classifier.logits(pictures(1)[:, :2])


def test_folded_batch_norms_are_known_and_amplified(
    tmp_path: Path, original: TorchClassifier, current: Any
) -> None:
    assert {node.op_type for node in current.graph.node}.isdisjoint({"BatchNormalization"})  # all folded
    classifier = bundle(tmp_path, current)
    assert layers(classifier) == (CONVOLUTIONS, CONVOLUTIONS, ())
    expected = evidence(original, pictures(6))
    assert torch.allclose(evidence(classifier, pictures(6)), expected, atol=SCORES)
    assert expected[:, 0].sub(expected[:, 5]).abs().max() > 0.01  # amplification is no small change here


def test_the_older_exporters_marks(tmp_path: Path, original: TorchClassifier) -> None:
    model = by_torchscript(small_network(), path=tmp_path / "m.onnx")
    classifier = bundle(tmp_path, model)
    amplified, folded, unsure = layers(classifier)
    assert [name.split("/")[-2] for name in amplified] == [
        "stem.0", "conv1", "conv2", "conv1", "conv2", "shortcut.0",
    ]  # fmt: skip
    assert amplified == folded
    assert unsure == ()
    assert torch.allclose(evidence(classifier, pictures(3)), evidence(original, pictures(3)), atol=SCORES)


def test_batch_norms_that_were_left_alone(tmp_path: Path, original: TorchClassifier) -> None:
    model = by_torchscript(
        small_network(), path=tmp_path / "m.onnx", training=torch.onnx.TrainingMode.PRESERVE
    )
    assert [node.op_type for node in model.graph.node].count("BatchNormalization") == 6
    classifier = bundle(tmp_path, model)
    assert layers(classifier) == (NORMS, (), ())
    assert torch.allclose(evidence(classifier, pictures(3)), evidence(original, pictures(3)), atol=SCORES)


def test_a_bias_alone_is_no_proof_of_folding(tmp_path: Path, original: TorchClassifier) -> None:
    """Folded before the export: the biases bear names of parameters, as plain convolutions' do."""
    model = by_torchscript(folded_network(small_network()), path=tmp_path / "m.onnx")
    classifier = bundle(tmp_path, model)
    assert layers(classifier) == ((), (), CONVOLUTIONS)
    assert layers(bundle(tmp_path, model, folded=["stem.0"])) == (("stem.0",), ("stem.0",), ())
    told = bundle(tmp_path, model, folded="all")
    assert layers(told) == (CONVOLUTIONS, CONVOLUTIONS, ())
    assert torch.allclose(evidence(told, pictures(3)), evidence(original, pictures(3)), atol=SCORES)


@pytest.mark.parametrize("batch", [1, 3])
def test_a_fixed_batch_is_filled_up_and_split(batch: int, tmp_path: Path, original: TorchClassifier) -> None:
    classifier = bundle(tmp_path, by_torchscript(small_network(), batch=batch, path=tmp_path / "m.onnx"))
    for count in (1, 2, 3, 7):
        assert torch.allclose(classifier.logits(pictures(count)), original.logits(pictures(count)), atol=1e-5)
    assert classifier.logits(pictures(0)).shape == (0, 5)
    assert torch.allclose(evidence(classifier, pictures(4)), evidence(original, pictures(4)), atol=SCORES)


class Wild(nn.Module):
    """(B, H, W, C) in [0, 255], BGR → probabilities: what many a network looks like."""

    def __init__(self, network: nn.Module) -> None:
        super().__init__()
        self.network = network
        self.mean, self.std = torch.tensor(SPEC["input"]["mean"]), torch.tensor(SPEC["input"]["std"])

    def forward(self, x: Tensor) -> Tensor:
        rgb = torch.stack([x[..., 2], x[..., 1], x[..., 0]], dim=-1).float()
        out: Tensor = self.network(((rgb / 255 - self.mean) / self.std).permute(0, 3, 1, 2)).softmax(1)
        return out


@pytest.mark.parametrize("dtype", [torch.float32, torch.uint8])
def test_layout_range_colours_and_output(
    dtype: torch.dtype, tmp_path: Path, original: TorchClassifier
) -> None:
    images = torch.zeros(2, SIDE, SIDE, 3, dtype=dtype)
    model = by_torchscript(Wild(small_network()).eval(), images=images, path=tmp_path / "m.onnx")
    given = {"size": [SIDE, SIDE], "layout": "nhwc", "range": [0, 255], "colours": "bgr"}
    classifier = bundle(tmp_path, model, input=given, output="probabilities")
    eighths = (pictures(4) * 255).round() / 255  # as images come: 8 bits
    assert torch.allclose(
        classifier.logits(eighths).softmax(1), original.logits(eighths).softmax(1), atol=1e-5
    )
    assert torch.allclose(evidence(classifier, eighths), evidence(original, eighths), atol=SCORES)
    with pytest.raises(ArchitectureError, match="say `layout: nhwc`"):
        bundle(tmp_path, model, input={**given, "layout": "nchw"}, output="probabilities")
    with pytest.raises(ArchitectureError, match="say `output: probabilities`"):
        bundle(tmp_path, model, input=given)
    if dtype == torch.uint8:
        with pytest.raises(ArchitectureError, match=r"of type uint8: say `range: \[0, 255\]`"):
            bundle(tmp_path, model, input={**given, "range": [0, 1]}, output="probabilities")


def test_half_precision(tmp_path: Path, original: TorchClassifier) -> None:
    model = by_torchscript(
        small_network().half(), images=torch.rand(2, 3, SIDE, SIDE).half(), path=tmp_path / "m.onnx"
    )
    classifier = bundle(tmp_path, model)
    assert classifier.logits(pictures(4)).dtype == torch.float32
    assert torch.allclose(classifier.logits(pictures(4)), original.logits(pictures(4)), atol=0.05)
    assert torch.allclose(
        evidence(classifier, pictures(4))[:, :6], evidence(original, pictures(4))[:, :6], atol=0.02
    )


class Two(nn.Module):
    def __init__(self, network: nn.Module) -> None:
        super().__init__()
        self.network = network

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        logits = self.network(x)
        return logits.argmax(1), logits


def test_one_of_several_outputs(tmp_path: Path, original: TorchClassifier) -> None:
    model = by_torchscript(
        Two(small_network()).eval(), path=tmp_path / "m.onnx", output_names=["label", "scores"]
    )
    with pytest.raises(ArchitectureError, match=r"has 2 outputs \(label, scores\): name the one"):
        bundle(tmp_path, model)
    with pytest.raises(ArchitectureError, match="no output 'logits'; it has label, scores"):
        bundle(tmp_path, model, output_name="logits")
    classifier = bundle(tmp_path, model, output_name="scores")
    assert torch.allclose(classifier.logits(pictures(2)), original.logits(pictures(2)), atol=1e-5)


def changed(model: Any, change: Any) -> Any:
    model = copy.deepcopy(model)
    change(model)
    return model


def newer(model: Any) -> None:
    model.opset_import[0].version = 999


def quantised(model: Any) -> None:
    model.graph.node.insert(0, onnx.helper.make_node("QuantizeLinear", ["x", "s"], ["q"]))


def another_input(model: Any) -> None:
    model.graph.input.append(onnx.helper.make_tensor_value_info("size", 1, [2]))


def of_integers(model: Any) -> None:
    model.graph.input[0].type.tensor_type.elem_type = onnx.TensorProto.INT64


def unknown_operator(model: Any) -> None:
    model.graph.node[0].domain = "my.ops"
    model.opset_import.append(onnx.helper.make_opsetid("my.ops", 1))


@pytest.mark.parametrize(
    ("change", "sentence"),
    [
        (newer, r"ONNX Runtime [\d.]+ cannot run it \(opset 999\): .*another `opset_version` at export"),
        (unknown_operator, r"cannot run it \(opset \d+, my\.ops 1\)"),
        (another_input, r"the graph has 2 inputs \(\w+, size\); a classifier has one"),
        (of_integers, "the graph's input is of type INT64; float32, float16 and uint8 are taken"),
    ],
)
def test_graphs_that_are_told_plainly(change: Any, sentence: str, tmp_path: Path, current: Any) -> None:
    with pytest.raises(ArchitectureError, match=rf"^model\.onnx: .*{sentence}"):
        bundle(tmp_path, changed(current, change))


def test_sizes_and_labels_that_do_not_fit(tmp_path: Path, current: Any) -> None:
    with pytest.raises(
        ArchitectureError,
        match=r"of shape \(\?, 3, 8, 8\), and `input` in model\.yaml describes \(B, 3, 8, 9\)",
    ):
        bundle(tmp_path, current, input={"size": [8, 9]})
    with pytest.raises(ArchitectureError, match="labels: 2 names for the network's 5 classes"):
        bundle(tmp_path, current, labels=["a", "b"])
    bundle(tmp_path, current)
    with pytest.raises(BundleError, match="backend onnx, and this needs the network itself"):
        load_network(tmp_path)


def test_a_quantised_graph_is_not_amplified(current: Any) -> None:
    found, _ = find_layers(changed(current, quantised), "marked")
    assert found.amplified == ()
    assert "the graph is quantised (QuantizeLinear)" in found.why_none()


@pytest.mark.parametrize("content", [b"", b"no model", b"\x08\x0a"])
def test_what_is_no_model(content: bytes, tmp_path: Path) -> None:
    (tmp_path / "model.onnx").write_bytes(content)
    with pytest.raises(WeightsError, match=r"model\.onnx is not a readable ONNX file"):
        load_bundle(write_bundle(tmp_path, "onnx", "model.onnx"))


class TestTensorsInFilesOfTheirOwn:
    def saved(self, directory: Path, model: Any, location: str = "weights.bin") -> Path:
        onnx.save_model(
            copy.deepcopy(model), directory / "model.onnx", save_as_external_data=True, location=location,
            size_threshold=0,
        )  # fmt: skip
        return write_bundle(directory, "onnx", "model.onnx")

    def test_are_read_and_count_in_the_digest(
        self, tmp_path: Path, original: TorchClassifier, current: Any
    ) -> None:
        directory = self.saved(tmp_path, current)
        classifier = load_bundle(directory)
        assert torch.allclose(classifier.logits(pictures(2)), original.logits(pictures(2)), atol=1e-5)
        content = np.fromfile(tmp_path / "weights.bin", dtype=np.uint8)
        content[2] ^= 1
        content.tofile(tmp_path / "weights.bin")
        assert load_bundle(directory).info.digest != classifier.info.digest

    def test_are_not_read_outside_the_bundle(self, tmp_path: Path, current: Any) -> None:
        inner = tmp_path / "bundle"
        inner.mkdir()
        self.saved(inner, current)
        model = onnx.load(inner / "model.onnx", load_external_data=False)
        for tensor in model.graph.initializer:
            for entry in tensor.external_data:
                if entry.key == "location":
                    entry.value = "../secret"
        (tmp_path / "secret").write_bytes(bytes(100_000))
        onnx.save(model, inner / "model.onnx")
        with pytest.raises(BundleError, match="lies outside the bundle"):
            load_bundle(inner)

    def test_are_long_enough(self, tmp_path: Path, current: Any) -> None:
        directory = self.saved(tmp_path, current)
        (tmp_path / "weights.bin").write_bytes(b"short")
        with pytest.raises(WeightsError, match=r"weights\.bin is shorter than model\.onnx says"):
            load_bundle(directory)


def test_a_device_that_this_runtime_lacks(tmp_path: Path, current: Any) -> None:
    bundle(tmp_path, current)
    with pytest.raises(BundleError, match="set TRIGGERWALL_DEVICE=cpu, or install"):
        load_bundle(tmp_path, "xla")
