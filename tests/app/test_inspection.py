"""What `triggerwall inspect` says before anybody deploys, on bundles of several backends."""

from pathlib import Path
from typing import Any

import pytest
import torch

from app.inspection import inspect_bundle
from app.settings import Settings
from models.errors import BundleError
from tests.models.artefacts import exported_program, folded_network, pictures, small_network, write_bundle


def facts(directory: Path, backend: str, file: str, changes: Any = None, **settings: Any) -> dict[str, str]:
    bundle = write_bundle(directory, backend, file, **(changes or {}))
    found, guarded = inspect_bundle(Settings(bundle=bundle, device="cpu", **settings))
    assert guarded
    return dict(found)


def test_an_exported_program(tmp_path: Path) -> None:
    torch.export.save(exported_program(small_network()), tmp_path / "model.pt2")
    said = facts(tmp_path, "exported", "model.pt2")
    assert said["backend"] == "exported"
    assert said["access"] == "weights"
    assert said["the network sees"] == "normalised by mean 0.5 0.4 0.3 and std 0.25 0.2 0.3, NCHW, RGB"
    assert said["the network returns"] == "logits"
    assert said["layers"] == "6 BatchNorm layers, 0 folded into convolutions"
    assert said["psc"] == "[green]yes[/], 6 BatchNorm layers"


def test_folded_layers_that_nothing_marks(tmp_path: Path) -> None:
    torch.export.save(exported_program(folded_network(small_network())), tmp_path / "model.pt2")
    said = facts(tmp_path, "exported", "model.pt2")
    assert "6 convolutions with a bias may have swallowed a BatchNorm (stem.0, " in said["layers"]
    assert said["psc"].startswith("[red]no[/]: IBD-PSC amplifies BatchNorm layers: no BatchNorm is left in")
    assert "`folded: all`" in said["psc"]
    assert said["profile"] == "[green]yes[/]"
    said = facts(tmp_path, "exported", "model.pt2", {"folded": "all"})
    assert said["layers"] == "0 BatchNorm layers, 6 folded into convolutions"
    assert said["psc"] == "[green]yes[/], 6 BatchNorm layers"


@pytest.mark.filterwarnings("ignore::FutureWarning")
def test_torchscript(tmp_path: Path) -> None:
    torch.jit.save(torch.jit.trace(small_network(), pictures(2)), tmp_path / "model.pt")
    with pytest.raises(BundleError, match="TRIGGERWALL_TRUST_MODEL_CODE"):
        facts(tmp_path, "torchscript", "model.pt")
    given = {"input": {"size": [8, 8], "range": [0, 255]}}
    said = facts(tmp_path, "torchscript", "model.pt", given, trust_model_code=True)
    assert (said["access"], said["the network sees"]) == ("probabilities", "pixels in [0, 255], NCHW, RGB")
    assert said["psc"].startswith("[red]no[/]: the detector psc needs a classifier's weights")
    assert said["psc"].endswith(
        "or export the network with torch.export or to ONNX, where it can be amplified"
    )
    assert said["spc"] == "[green]yes[/]"
