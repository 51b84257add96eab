import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml
from safetensors.torch import load_file, save_file
from torch import nn

from models.base import ClassifierInfo
from models.errors import ArchitectureError, BundleError, InputError, WeightsError
from models.loading import load_network
from models.torch_module import TorchClassifier
from tests.models.conftest import TINY, MakeBundle, tiny_weights

INPUT: dict[str, Any] = dict(TINY["input"])  # type: ignore[call-overload]


class Odd(nn.Module):
    """Something else than logits (B, classes), by `kind`."""

    def __init__(self, kind: str) -> None:
        super().__init__()
        self.kind = kind
        self.scale = nn.Parameter(torch.ones(1))

    def forward(self, x: torch.Tensor) -> object:
        logits = self.scale * x.mean((2, 3))
        return {
            "mapping": {"out": logits},
            "pair": (logits, logits),
            "one score": logits[:, :1],
            "map": logits[:, :, None, None],
            "no batch": logits.mean(0, keepdim=True),
        }[self.kind]


def test_logits_by_hand(make_bundle: MakeBundle) -> None:
    classifier = load_network(make_bundle())
    pixels = torch.tensor([0.75, 0.25, 0.3]).view(1, 3, 1, 1).expand(1, 3, 4, 4)
    # normalised: (0.75 − 0.5) / 0.5 = 0.5, (0.25 − 0.25) / 0.2 = 0, (0.3 − 0.1) / 0.1 = 2
    expected = [0.0 * 0.5 + 0.2 * 2 + 1, 0.3 * 0.5 + 0.5 * 2, 0.6 * 0.5 + 0.8 * 2 - 1]
    assert classifier.logits(pixels).tolist()[0] == pytest.approx(expected)
    assert classifier.network(pixels).tolist()[0] == pytest.approx(expected)


def test_without_statistics_the_network_sees_pixels(make_bundle: MakeBundle) -> None:
    classifier = load_network(make_bundle(input={"size": [4, 4]}))
    white = classifier.logits(torch.ones(1, 3, 4, 4))
    assert white.tolist()[0] == pytest.approx([0.0 + 0.1 + 0.2 + 1, 0.3 + 0.4 + 0.5, 0.6 + 0.7 + 0.8 - 1])


def test_info_and_state_of_the_network(make_bundle: MakeBundle) -> None:
    classifier = load_network(make_bundle(version="7b", input={**INPUT, "interpolation": "bicubic"}))
    assert classifier.info == ClassifierInfo(
        name="tiny", version="7b", digest=classifier.info.digest, architecture=str(TINY["architecture"]),
        backend="torch", access="weights", num_classes=3, labels=("a", "b", "c"), channels=3, size=(4, 4),
        interpolation="bicubic",
    )  # fmt: skip
    assert classifier.num_classes == 3
    assert classifier.device == torch.device("cpu")
    assert [classifier.info.name_of(i) for i in range(3)] == ["a", "b", "c"]
    assert not classifier.network.training
    assert not any(p.requires_grad for p in classifier.network.parameters())
    assert load_network(make_bundle(labels=None)).info.name_of(1) is None


def test_weights_stored_in_half_run_in_single_precision(make_bundle: MakeBundle) -> None:
    halves = {name: value.half() for name, value in tiny_weights().items()}
    classifier = load_network(make_bundle(halves))
    assert {p.dtype for p in classifier.network.parameters()} == {torch.float32}
    assert classifier.logits(torch.rand(2, 3, 4, 4)).dtype == torch.float32


@pytest.mark.parametrize(
    "images",
    [
        torch.zeros(3, 4, 4),
        torch.zeros(1, 1, 4, 4),
        torch.zeros(1, 3, 4, 5),
        torch.zeros(1, 3, 4, 4, dtype=torch.uint8),
        torch.zeros(1, 3, 4, 4).half(),
        torch.zeros(1, 3, 4, 4).double(),
    ],
    ids=lambda t: f"{t.dtype}{tuple(t.shape)}",
)
def test_other_tensors_are_refused(images: torch.Tensor, make_bundle: MakeBundle) -> None:
    classifier = load_network(make_bundle())
    with pytest.raises(InputError, match=r"tiny takes torch\.float32 of shape \(B, 3, 4, 4\), not torch\."):
        classifier.logits(images)


def test_an_empty_batch_gives_no_logits(make_bundle: MakeBundle) -> None:
    assert load_network(make_bundle()).logits(torch.zeros(0, 3, 4, 4)).shape == (0, 3)


@pytest.mark.parametrize(("name", "side"), [("googlenet", 32), ("inception_v3", 80)])
@pytest.mark.filterwarnings("ignore:The default weight initialization:FutureWarning")
def test_networks_with_auxiliary_heads_give_plain_logits(
    name: str, side: int, make_bundle: MakeBundle
) -> None:
    directory = make_bundle(
        "fresh",
        architecture=f"torchvision:{name}",
        architecture_args={"num_classes": 3, "init_weights": False},
        input={"size": [side, side]},
    )
    classifier = load_network(directory)
    assert classifier.num_classes == 3
    assert classifier.logits(torch.rand(2, 3, side, side)).shape == (2, 3)


def test_torchvision_bundle(make_bundle: MakeBundle) -> None:
    args = {"num_classes": 43}
    directory = make_bundle(
        "fresh",
        architecture="torchvision:resnet18",
        architecture_args=args,
        labels=None,
        input={"size": [32, 32]},
    )
    assert load_network(directory).num_classes == 43


@pytest.mark.parametrize(
    ("state", "sentence"),
    [
        ({"2.weight": torch.zeros(3, 3)}, r"1 missing \(such as '2.bias'\)$"),
        ({**tiny_weights(), "extra": torch.zeros(1)}, r"1 not of this network \(such as 'extra'\)$"),
        ({**tiny_weights(), "2.bias": torch.zeros(4)}, r"1 of another shape \(such as '2.bias'\)$"),
        (
            {f"module.{name}": value for name, value in tiny_weights().items()},
            r"2 missing \(such as '2.bias'\), 2 not of this network \(such as 'module.2.bias'\)$",
        ),
    ],
)
def test_weights_of_another_network(
    state: dict[str, torch.Tensor], sentence: str, make_bundle: MakeBundle
) -> None:
    with pytest.raises(
        ArchitectureError, match=rf"weights\.safetensors do not fit the architecture: {sentence}"
    ):
        load_network(make_bundle(state))


@pytest.mark.parametrize(
    ("changes", "sentence"),
    [
        ({"labels": ["a", "b"]}, "labels: 2 names for the network's 3 classes"),
        ({"input": {"size": [4, 4], "channels": 1}}, r"fails on images of shape \(1, 4, 4\)"),
        ({"architecture_args": {"num_classes": 4}}, "of another shape"),
    ],
)
def test_bundle_and_network_disagree(changes: dict[str, Any], sentence: str, make_bundle: MakeBundle) -> None:
    with pytest.raises(ArchitectureError, match=sentence):
        load_network(make_bundle(**changes))


@pytest.mark.parametrize("kind", ["mapping", "pair", "one score", "map", "no batch"])
def test_what_gives_no_logits_per_image(kind: str, make_bundle: MakeBundle) -> None:
    with pytest.raises(ArchitectureError, match="does not return logits of shape"):
        load_network(make_bundle("fresh", architecture=f"{__name__}:Odd", architecture_args={"kind": kind}))


def test_weights_that_are_not_finite(make_bundle: MakeBundle) -> None:
    broken = tiny_weights()
    broken["2.weight"][0, 0] = float("nan")
    with pytest.raises(
        WeightsError, match=r"weights\.safetensors: the logits of a blank image are not finite"
    ):
        load_network(make_bundle(broken))


def test_no_weights_outside_the_bundle(make_bundle: MakeBundle, tmp_path: Path) -> None:
    save_file(tiny_weights(), tmp_path / "elsewhere.safetensors")
    with pytest.raises(BundleError, match="lies outside the bundle"):
        load_network(make_bundle(weights="../elsewhere.safetensors"))
    with pytest.raises(WeightsError, match="does not exist"):
        load_network(make_bundle(weights="absent.safetensors"))


class Bomb:
    def __init__(self, proof: Path) -> None:
        self.proof = proof

    def __reduce__(self) -> tuple[Any, ...]:
        return os.mkdir, (os.fspath(self.proof),)


def test_a_bundle_with_a_pickled_model_is_refused(make_bundle: MakeBundle, tmp_path: Path) -> None:
    directory, proof = make_bundle(weights="model.pt"), tmp_path / "proof"
    torch.save(Bomb(proof), directory / "model.pt")
    with pytest.raises(WeightsError, match="pickled Python object"):
        load_network(directory)
    assert not proof.exists()


def edit(directory: Path, **changes: Any) -> None:
    path = directory / "model.yaml"
    content = yaml.safe_load(path.read_text(encoding="utf-8"))
    path.write_text(yaml.safe_dump({**content, **changes}, sort_keys=False), encoding="utf-8")


def nudge_a_weight(directory: Path) -> None:
    state = load_file(directory / "weights.safetensors")
    state["2.bias"][1] += 1e-6
    save_file(state, directory / "weights.safetensors")


def store_as_torch_file(directory: Path) -> None:
    torch.save(load_file(directory / "weights.safetensors"), directory / "weights.pt")
    edit(directory, weights="weights.pt")


@pytest.mark.parametrize(
    "change",
    [
        nudge_a_weight,
        lambda d: edit(d, input={**INPUT, "mean": [0.5, 0.25, 0.1001]}),
        lambda d: edit(d, input={**INPUT, "std": [0.5, 0.2, 0.1001]}),
        lambda d: edit(d, input={**INPUT, "size": [4, 5]}),
        lambda d: edit(d, input={**INPUT, "interpolation": "nearest"}),
        lambda d: edit(d, architecture_args={"num_classes": 3, "channels": 3}),
    ],
    ids=["weight", "mean", "std", "size", "interpolation", "argument"],
)
def test_digest_changes_with_what_decides_the_answers(
    change: Callable[[Path], None], make_bundle: MakeBundle
) -> None:
    directory = make_bundle()
    before = load_network(directory).info.digest
    change(directory)
    assert load_network(directory).info.digest != before


@pytest.mark.parametrize(
    "change",
    [
        lambda d: edit(d, name="other"),
        lambda d: edit(d, version="2"),
        lambda d: edit(d, labels=["x", "y", "z"]),
        lambda d: edit(d, input=dict(reversed(INPUT.items()))),
        store_as_torch_file,
    ],
    ids=["name", "version", "labels", "order of fields", "file format"],
)
def test_digest_stays_with_what_does_not(change: Callable[[Path], None], make_bundle: MakeBundle) -> None:
    directory = make_bundle()
    before = load_network(directory).info.digest
    change(directory)
    assert load_network(directory).info.digest == before


def test_a_classifier_takes_its_network_over() -> None:
    network = nn.Sequential(nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Dropout(0.9))
    info = ClassifierInfo("n", "1", "0", "a:b", "torch", "weights", 3, None, 3, (2, 2), "nearest")
    classifier = TorchClassifier(network.train(), info, torch.device("cpu"))
    assert classifier.logits(torch.ones(1, 3, 2, 2)).tolist() == [[1.0, 1.0, 1.0]]
