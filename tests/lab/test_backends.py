"""One classifier through every backend, on a network small enough for a test."""

import pytest
import torch

from detectors.ibd_psc import IbdPsc
from lab.backends import Agreement, agreement_table, compare
from lab.data import ImageSet
from lab.judge import Study
from models.bundle import TorchSpec
from models.contract import pixel_network
from models.torch_module import TorchClassifier, info_of
from tests.models.artefacts import SPEC, pictures, small_network

pytest.importorskip("onnxruntime")


def study(calibration: int, judged: int) -> Study:
    spec = TorchSpec.model_validate({**SPEC, "architecture": "a:b", "weights": "w"})
    network = pixel_network(small_network(), spec)
    classifier = TorchClassifier(network, info_of(spec, "0", "a:b", 5), torch.device("cpu"))
    images = (pictures(calibration + judged, seed=3) * 255).byte()
    labels = torch.zeros(len(images), dtype=torch.int64)
    return Study(
        classifier,
        (IbdPsc(classifier, pictures(2)),),
        ImageSet(images[:calibration], labels[:calibration], tuple("abcde")),
        images[calibration:],
        images[:0],
        None,
        0,
    )


@pytest.fixture(scope="module")
def rows(tmp_path_factory: pytest.TempPathFactory) -> list[Agreement]:
    return compare(study(60, 20), tmp_path_factory.mktemp("backends"), alpha=0.1)


def test_scores_agree_and_no_verdict_differs(rows: list[Agreement]) -> None:
    assert [(row.backend, row.engine) for row in rows] == [
        ("exported", "fork"),
        ("onnx", "factors"),
        ("onnx, batch of 1", "factors"),
    ]
    for row in rows:
        assert row.difference < 1e-5
        assert (row.verdicts, row.predictions, row.images) == (0, 0, 20)
    assert agreement_table("small", rows).row_count == 3
