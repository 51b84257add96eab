"""Images that detectors keep: what survives JSON, and who is given what."""

import json

import pytest
import torch
from torch import Tensor

from detectors.base import CalibrationError, InputError
from detectors.calibration import BenignSample
from detectors.references import (
    MOST_BYTES,
    REFERENCES,
    enlarged,
    keep_references,
    pack,
    references_wanted,
    unpack,
    with_references,
    without_references,
)
from detectors.scale_up import ScaleUp
from detectors.strip import Strip
from tests.detectors.classifiers import Network, bn_chain


def pictures(count: int, *shape: int) -> Tensor:
    return torch.rand(count, *shape, generator=torch.Generator().manual_seed(1))


@pytest.mark.parametrize("shape", [(3, 32, 32), (1, 28, 28), (1, 1, 1), (3, 5, 9)])
def test_images_survive_json_to_the_nearest_of_256_levels(shape: tuple[int, int, int]) -> None:
    images = pictures(4, *shape)
    again = unpack(json.loads(json.dumps(pack(images))))
    assert again.shape == images.shape
    assert (again - images).abs().max() <= 0.5 / 255 + 1e-6
    assert pack(again) == pack(images)
    assert torch.equal(enlarged(again, images), again)


def test_large_images_are_kept_small() -> None:
    images = torch.full((2, 3, 300, 200), 0.4)
    packed = pack(images)
    channels, height, width = packed["shape"]
    assert channels * height * width <= MOST_BYTES
    assert abs(height / width - 1.5) < 0.02
    again = enlarged(unpack(packed), images)
    assert again.shape == images.shape
    assert again.flatten().tolist()[:3] == pytest.approx([0.4] * 3, abs=1 / 255)


@pytest.mark.parametrize(
    "change",
    [{"shape": [3, 4]}, {"shape": [1, 3, 4]}, {"pixels": ["not base64!"]}, {"pixels": []}, {"shape": None}],
)
def test_a_damaged_pack_is_refused(change: dict[str, object]) -> None:
    with pytest.raises(CalibrationError, match="calibrate again"):
        unpack({**pack(pictures(2, 1, 3, 3)), **change})


def test_only_detectors_that_compare_are_given_references() -> None:
    classifier = Network(bn_chain(), 4)
    spc, strip = ScaleUp(classifier), Strip(classifier, 3)
    assert references_wanted([spc]) == 0
    assert references_wanted([spc, strip]) == 3
    assert keep_references([spc], pictures(0, 1, 3, 3)) == {}
    kept = keep_references([spc, strip], pictures(5, 1, 3, 3))
    assert list(kept) == ["strip"]
    assert len(kept["strip"][REFERENCES]["pixels"]) == 3
    assert with_references(spc, kept) is spc
    assert with_references(strip, {}) is strip
    assert with_references(strip, kept).measure(pictures(2, 1, 3, 3)).shape == (2, 3)
    with pytest.raises(CalibrationError, match="3 are kept"):
        keep_references([strip], pictures(2, 1, 3, 3))


def test_reports_show_no_pictures() -> None:
    assert without_references({"mean": 1.0, REFERENCES: pack(pictures(1, 1, 3, 3))}) == {"mean": 1.0}


def test_batches_compared_with_different_images_do_not_join() -> None:
    classifier = Network(bn_chain(), 4)
    strip = Strip(classifier, 1)
    parts = []
    for image in pictures(2, 1, 3, 3).split(1):
        kept = keep_references([strip], image)
        evidence = with_references(strip, kept).measure(pictures(4, 1, 3, 3)).double().numpy()
        parts.append(BenignSample(classifier.logits(pictures(4, 1, 3, 3)).argmax(1).numpy(), None,
                                  {"strip": evidence}, kept))  # fmt: skip
    with pytest.raises(InputError, match="different references"):
        BenignSample.join(parts, None)
    joined = BenignSample.join([parts[0], parts[0]], None)
    assert len(joined) == 8
    assert joined.references == parts[0].references
