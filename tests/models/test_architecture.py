import os
import sys
import urllib.request
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

from detectors.amplification import batch_norm_order
from models.architecture import build_network
from models.errors import ArchitectureError


def unannotated(num_classes):  # type: ignore[no-untyped-def]
    return nn.Linear(2, num_classes)


def number(num_classes):  # type: ignore[no-untyped-def]
    return num_classes


def says_number(num_classes: int) -> int:
    raise AssertionError(f"called with {num_classes}")


class OwnNetwork(nn.Module):
    def __init__(self, width: int) -> None:
        super().__init__()
        self.fc = nn.Linear(1, width)


HERE = __name__


@pytest.fixture
def no_network(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_args: Any, **_kwargs: Any) -> None:
        raise AssertionError("a download was attempted")

    monkeypatch.setattr(urllib.request, "urlopen", refuse)
    monkeypatch.setattr(torch.hub, "download_url_to_file", refuse)


@pytest.mark.usefixtures("no_network")
def test_torchvision_by_name_with_its_arguments_and_no_download() -> None:
    network = build_network("torchvision:resnet18", {"num_classes": 43}).eval()
    with torch.inference_mode():
        assert network(torch.zeros(1, 3, 64, 64)).shape == (1, 43)


@pytest.mark.usefixtures("no_network")
@pytest.mark.parametrize("argument", [{"weights": "DEFAULT"}, {"pretrained": True}])
def test_weights_are_never_downloaded(argument: dict[str, Any]) -> None:
    with pytest.raises(ArchitectureError, match="never from a download"):
        build_network("torchvision:resnet18", argument)


@pytest.mark.usefixtures("no_network")
@pytest.mark.parametrize("name", ["resnet1000", "fasterrcnn_resnet50_fpn", "fcn_resnet50", "list_models", ""])
def test_torchvision_offers_image_classifiers_only(name: str) -> None:
    with pytest.raises(ArchitectureError, match="no image classifier"):
        build_network(f"torchvision:{name}", {})


def test_zoo_by_name() -> None:
    assert build_network("zoo:badnets_cnn", {"num_classes": 4}).fc2.out_features == 4
    with pytest.raises(ArchitectureError, match=r"no 'resnet21'; it has badnets_cnn, .*vgg16_bn"):
        build_network("zoo:resnet21", {})


@pytest.mark.parametrize(
    ("name", "args"),
    [
        (f"{HERE}:OwnNetwork", {"width": 2}),
        (f"{HERE}:unannotated", {"num_classes": 2}),
        ("models.zoo:resnet20", {}),
        ("torchvision.models:resnet18", {}),
        ("torch:nn.Linear", {"in_features": 1, "out_features": 2}),
    ],
)
def test_callables_of_modules(name: str, args: dict[str, Any]) -> None:
    assert isinstance(build_network(name, args), nn.Module)


@pytest.mark.parametrize(
    ("name", "args"),
    [
        ("os:system", {"command": "touch {proof}"}),
        ("os:mkdir", {"path": "{proof}"}),
        ("os:makedirs", {"name": "{proof}"}),
        ("subprocess:Popen", {"args": ["touch", "{proof}"]}),
        ("torch:os.system", {"command": "touch {proof}"}),
        ("builtins:open", {"file": "{proof}", "mode": "w"}),
        ("numpy:savetxt", {"fname": "{proof}", "X": [1]}),
        ("torch:save", {"obj": 1, "f": "{proof}"}),
        ("torch:load", {"f": "{proof}", "weights_only": False}),
    ],
)
def test_what_builds_no_network_is_refused_before_it_runs(
    name: str, args: dict[str, Any], tmp_path: Path
) -> None:
    proof = tmp_path / "proof"
    filled = {
        key: [v.format(proof=proof) if isinstance(v, str) else v for v in value]
        if isinstance(value, list)
        else value.format(proof=proof)
        if isinstance(value, str)
        else value
        for key, value in args.items()
    }
    with pytest.raises(ArchitectureError, match="not known to build a network"):
        build_network(name, filled)
    assert not proof.exists()


@pytest.mark.parametrize(
    ("name", "args", "sentence"),
    [
        ("no_such_package:thing", {}, "cannot be imported: No module named 'no_such_package'"),
        ("models.zoo:nothing", {}, "cannot be imported.*nothing"),
        (f"{HERE}:HERE", {}, "not known to build a network"),
        (f"{HERE}:says_number", {"num_classes": 3}, "not known to build a network"),
        (f"{HERE}:number", {"num_classes": 3}, "returned an object of type int, not an nn.Module"),
        ("zoo:resnet20", {"classes": 3}, "could not be built with {'classes': 3}.*'classes'"),
    ],
)
def test_errors_name_what_is_wrong(name: str, args: dict[str, Any], sentence: str) -> None:
    with pytest.raises(ArchitectureError, match=sentence):
        build_network(name, args)


def test_a_module_that_fails_while_it_is_imported(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "broken_module.py").write_text("1 / 0", encoding="utf-8")
    monkeypatch.setattr(sys, "path", [os.fspath(tmp_path), *sys.path])
    with pytest.raises(ArchitectureError, match="broken_module:net cannot be imported: division by zero"):
        build_network("broken_module:net", {})


class TestTimm:
    """Where timm is installed, which is an extra."""

    @pytest.fixture(autouse=True)
    def _installed(self) -> None:
        pytest.importorskip("timm")

    def test_a_network_by_name(self) -> None:
        network = build_network("timm:test_resnet", {"num_classes": 4}).eval()
        assert network(torch.rand(2, 3, 32, 32)).shape == (2, 4)
        order = batch_norm_order(network, torch.rand(1, 3, 32, 32))
        assert (order[0], order[-1], len(order)) == ("conv1.1", "layer4.0.downsample.2", 15)

    def test_unknown(self) -> None:
        with pytest.raises(ArchitectureError, match="timm has no model 'resnet20000'"):
            build_network("timm:resnet20000", {})

    @pytest.mark.parametrize(
        "args", [{"pretrained": True}, {"checkpoint_path": "/tmp/x.pt"}, {"pretrained_cfg": {"url": "x"}}]
    )
    def test_nothing_is_fetched(self, args: dict[str, Any]) -> None:
        name = next(iter(args))
        with pytest.raises(ArchitectureError, match=f"remove {name!r}: weights come from the bundle"):
            build_network("timm:test_resnet", args)
