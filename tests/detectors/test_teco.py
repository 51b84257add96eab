"""TeCo against hand-computed severities and a slow, obvious reference."""

import statistics

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from detectors import teco as module
from detectors.base import Access, BasePass, CalibrationError
from detectors.calibration import BenignSample, calibrate
from detectors.corruptions import CORRUPTIONS, corruption
from detectors.teco import TeCo
from tests.detectors.classifiers import Brightness, Network

NOBODY = np.zeros(0, dtype=np.int64)


class Split(nn.Module):
    """Four classes by the brightness of the left half and by how rough the image is."""

    def forward(self, images: Tensor) -> Tensor:
        left = images[..., : images.shape[-1] // 2].mean((1, 2, 3)) - 0.45
        rough = (images.diff(dim=-1).abs().mean((1, 2, 3)) - 0.1) * 3
        return torch.stack([left + rough, left - rough, rough - left, -left - rough], 1) * 8


def pictures(count: int) -> Tensor:
    numbers = torch.Generator().manual_seed(1)
    smooth = torch.rand(count, 3, 4, 4, generator=numbers)
    images = nn.functional.interpolate(smooth, (12, 12), mode="bilinear", align_corners=False)
    return (images + 0.15 * torch.randn(images.shape, generator=numbers)).clamp(0, 1)


def reference(classifier: Network, image: Tensor) -> tuple[list[int], float]:
    """One corruption and one severity at a time, always from the clean image."""
    label = classifier.logits(image[None]).argmax().item()
    severities = []
    for name in CORRUPTIONS:
        first = 6
        for severity in (5, 4, 3, 2, 1):
            if classifier.logits(corruption(name, severity)(image[None])).argmax().item() != label:
                first = severity
        severities.append(first)
    return severities, statistics.pstdev(severities)


def test_agrees_with_the_reference() -> None:
    classifier = Network(Split(), 4)
    detector, images = TeCo(classifier), pictures(8)
    expected = [reference(classifier, image) for image in images]
    assert len({severity for severities, _ in expected for severity in severities}) >= 4
    evidence = detector.measure(images).double().numpy()
    assert evidence.tolist() == [severities for severities, _ in expected]
    scores = [score for _, score in expected]
    assert detector.score(evidence, NOBODY, {}).tolist() == pytest.approx(scores)
    served = detector.scorer({}).score(BasePass.of(images, classifier.logits(images)))
    assert served.values.tolist() == pytest.approx(scores)
    assert served.exact.all()


def test_by_hand() -> None:
    """Grey 0.28 is class 0 (< 0.3). Brightness adds 0.05 at severity 1: 0.33, class 1. Contrast keeps the
    mean, blur keeps it, and so do pixelate and elastic: never. The label is all that counts."""
    classifier = Network(Brightness(), 3)
    severities = dict(
        zip(CORRUPTIONS, TeCo(classifier).measure(torch.full((1, 3, 16, 16), 0.28))[0].tolist(), strict=True)
    )
    assert severities["brightness"] == 1
    for name in ("contrast", "defocus_blur", "glass_blur", "motion_blur", "zoom_blur", "pixelate"):
        assert severities[name] == 6


def test_the_label_that_comes_back_at_a_higher_severity_still_changed() -> None:
    class Once(nn.Module):
        """Class 1 only around brightness 0.5."""

        def forward(self, images: Tensor) -> Tensor:
            near = ((images.mean((1, 2, 3)) - 0.5).abs() < 0.02).float()
            return torch.stack([1 - near, near], 1)

    # Brightness adds .05, .1, .15, .2, .3 to 0.35: class 1 at severity 3 alone.
    evidence = TeCo(Network(Once(), 2)).measure(torch.full((1, 1, 8, 8), 0.35))
    assert evidence[0, list(CORRUPTIONS).index("brightness")] == 3


def test_what_has_changed_is_not_asked_again(monkeypatch: pytest.MonkeyPatch) -> None:
    class Fickle(nn.Module):
        """Clean images (exactly 0.5) are class 0, everything else class 1."""

        def forward(self, images: Tensor) -> Tensor:
            same = (images == 0.5).flatten(1).all(1).float()
            return torch.stack([same, 1 - same], 1)

    classifier = Network(Fickle(), 2)
    images = torch.full((4, 3, 8, 8), 0.5)
    evidence = TeCo(classifier).measure(images)
    asked = sum(classifier.calls) - 4
    assert asked == evidence.clamp(max=5).sum().item()
    monkeypatch.setattr(module, "rows_at_once", lambda _: 7)
    classifier.calls.clear()
    assert torch.equal(TeCo(classifier).measure(images), evidence)
    assert max(classifier.calls) <= 7


def test_the_largest_score_by_hand() -> None:
    """Eight corruptions at 1, seven at 6: the variance of five times a coin of 8/15."""
    detector = TeCo(Network(Brightness(), 3))
    largest = detector.maxima({})[0]
    assert largest == pytest.approx(5 * (8 * 7) ** 0.5 / 15)
    rows = np.random.default_rng(1).integers(1, 7, (500, 15)).astype(float)
    assert detector.score(rows, NOBODY, {}).max() <= largest
    assert detector.score(np.full((1, 15), 6.0), NOBODY, {}).tolist() == [0.0]


def test_an_answer_that_is_no_number_is_never_a_score() -> None:
    class Broken(nn.Module):
        def forward(self, images: Tensor) -> Tensor:
            lost = (images == 0.5).flatten(1).all(1)
            return torch.where(lost[:, None], torch.tensor([1.0, 0.0]), torch.tensor([torch.nan, 0.0]))

    detector = TeCo(Network(Broken(), 2))
    images = torch.full((2, 1, 8, 8), 0.5)
    assert detector.measure(images).isnan().any(1).all()
    sample = BenignSample(np.zeros(40, dtype=np.int64), None, {"teco": np.full((40, 15), np.nan)})
    with pytest.raises(CalibrationError, match="not numbers"):
        calibrate(detector, sample, 0.1)


def test_calibrates_from_labels_alone() -> None:
    detector = TeCo(Network(Brightness(), 3))
    assert Access.LABELS.grants(TeCo.needs)
    rows = np.random.default_rng(1).integers(1, 7, (60, 15)).astype(float)
    part = calibrate(detector, BenignSample(np.zeros(60, dtype=np.int64), None, {"teco": rows}), 0.1)
    scores = rows.std(1)
    assert part.fit == {"mean": pytest.approx(scores.mean()), "std": pytest.approx(scores.std())}
    expected = scores.mean() + 2.326 * scores.std()
    assert detector.fixed_thresholds(part.fit).tolist() == pytest.approx([expected] * 3)
    assert detector.data_free_fit() is None
    with pytest.raises(CalibrationError):
        detector.fit(np.empty((0, 15)), NOBODY, None)
