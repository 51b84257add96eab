"""TorchScript bundles: run only where their author is trusted, and then as the network they were made of."""

import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

from models.errors import BundleError, InputError, WeightsError
from models.loading import load_bundle
from models.torchscript import TorchScriptClassifier
from tests.models.artefacts import SPEC, pictures, small_network, write_bundle


@pytest.fixture(autouse=True)
def _deprecated() -> Iterator[None]:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", FutureWarning)
        yield


def bundle(directory: Path, program: Any, **changes: Any) -> Path:
    torch.jit.save(program, directory / "model.pt")
    return write_bundle(directory, "torchscript", "model.pt", **changes)


def expected(count: int) -> torch.Tensor:
    given = SPEC["input"]
    mean, std = (torch.tensor(given[name]).view(3, 1, 1) for name in ("mean", "std"))
    out: torch.Tensor = small_network()((pictures(count) - mean) / std)
    return out


@pytest.mark.parametrize(
    "make",
    [
        lambda network: torch.jit.trace(network, pictures(2)),
        torch.jit.script,
        lambda network: torch.jit.freeze(torch.jit.script(network)),
    ],
    ids=["traced", "scripted", "frozen"],
)
def test_it_is_the_network_that_it_was_made_of(make: Any, tmp_path: Path) -> None:
    classifier = load_bundle(bundle(tmp_path, make(small_network())), trusted=True)
    assert torch.allclose(classifier.logits(pictures(5)), expected(5), atol=1e-5)
    info = classifier.info
    assert (info.backend, info.access, info.num_classes) == ("torchscript", "probabilities", 5)
    assert classifier.network is None
    assert isinstance(classifier, TorchScriptClassifier)
    with pytest.raises(InputError, match="takes torch"):
        classifier.logits(pictures(1).double())


def test_it_does_not_run_unless_its_author_is_trusted(tmp_path: Path) -> None:
    directory = bundle(tmp_path, torch.jit.trace(small_network(), pictures(2)))
    with pytest.raises(BundleError, match=r"model\.pt is TorchScript: a program.*TRUST_MODEL_CODE=true"):
        load_bundle(directory)


class OneAtATime(nn.Module):
    """Its trace knows one image only."""

    def __init__(self) -> None:
        super().__init__()
        self.network = small_network()

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.network(x.view(1, 3, 8, 8)).view(1, -1)


def test_a_trace_of_one_image(tmp_path: Path) -> None:
    program = torch.jit.trace(OneAtATime().eval(), pictures(1))
    with pytest.raises(BundleError, match=r"model\.pt fails on images of shape \(3, 8, 8\)"):
        load_bundle(bundle(tmp_path, program), trusted=True)
    classifier = load_bundle(bundle(tmp_path, program, batch=1), trusted=True)
    assert torch.allclose(classifier.logits(pictures(3)), expected(3), atol=1e-5)


@pytest.mark.parametrize("content", [b"", b"no program"])
def test_what_is_no_program(content: bytes, tmp_path: Path) -> None:
    (tmp_path / "model.pt").write_bytes(content)
    with pytest.raises(WeightsError, match=r"model\.pt is not a readable TorchScript file"):
        load_bundle(write_bundle(tmp_path, "torchscript", "model.pt"), trusted=True)


def test_the_digest_covers_the_file(tmp_path: Path) -> None:
    digests = set()
    for seed in (0, 1):
        directory = bundle(tmp_path, torch.jit.trace(small_network(seed), pictures(2)))
        digests.add(load_bundle(directory, trusted=True).info.digest)
    assert len(digests) == 2
