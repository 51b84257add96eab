"""The frequency detector against plain loops, and on images whose spectrum is known."""

import json
import math

import numpy as np
import pytest
import torch
from torch import Tensor

from detectors.base import Access, BasePass, CalibrationError
from detectors.calibration import BenignSample, calibrate
from detectors.frequency import Frequency, logistic_regression, spectrum
from detectors.synthetic_triggers import KINDS, with_synthetic_trigger
from tests.detectors.classifiers import Brightness, Network

NOBODY = np.zeros(0, dtype=np.int64)


def natural(count: int, seed: int = 1, side: int = 16) -> Tensor:
    """Images (count, 3, side, side) whose spectrum falls with frequency, as photographs' does."""
    random = np.random.default_rng(seed)
    rows = np.arange(side)[:, None]
    fall = 1 / (1 + rows + rows.T) ** 1.5
    basis = np.cos(math.pi * (2 * rows.T + 1) * rows / (2 * side))
    images = basis.T @ (random.standard_normal((count, 3, side, side)) * fall) @ basis
    return torch.from_numpy((0.5 + 0.12 * images).clip(0, 1)).float()


def patched(images: Tensor) -> Tensor:
    """A checkerboard of 3×3 pixels in a corner."""
    stamped = images.clone()
    stamped[..., -4:-1, -4:-1] = torch.tensor([[1.0, 0.0, 1.0], [0.0, 1.0, 0.0], [1.0, 0.0, 1.0]])
    return stamped


def test_the_spectrum_by_plain_loops() -> None:
    image = natural(1, side=16)[:, :1]
    bands = [[0.0] * 8 for _ in range(8)]
    for u in range(16):
        for v in range(16):
            total = 0.0
            for y in range(16):
                for x in range(16):
                    waves = math.cos(math.pi * (2 * y + 1) * u / 32) * math.cos(
                        math.pi * (2 * x + 1) * v / 32
                    )
                    total += float(image[0, 0, y, x]) * waves
            total *= (2 / 16) * (0.5**0.5 if u == 0 else 1) * (0.5**0.5 if v == 0 else 1)
            bands[u // 2][v // 2] += math.log(abs(total) + 1e-3) / 4
    assert spectrum(image)[0].tolist() == pytest.approx([b for row in bands for b in row], abs=2e-3)


def test_a_grey_image_has_no_frequencies_and_small_images_fewer_bands() -> None:
    floor = math.log(1e-3)
    grey = spectrum(torch.full((1, 1, 8, 8), 0.5))[0]
    assert grey[0].item() == pytest.approx(math.log(4.0 + 1e-3))
    assert grey[1:].tolist() == pytest.approx([floor] * 63, abs=1e-2)
    assert spectrum(torch.zeros(2, 3, 5, 9)).shape == (2, 3 * 5 * 8)


def test_logistic_regression_is_the_minimum() -> None:
    """At the minimum of the penalised loss no small step helps."""
    random = np.random.default_rng(1)
    rows = random.standard_normal((80, 3)) * [1, 5, 0.2] + [0, 3, -1]
    kinds = (rows[:, 0] + random.standard_normal(80) > 0).astype(float)
    weights, bias = logistic_regression(rows, kinds)

    def loss(weights: np.ndarray, bias: float) -> float:
        margins = (2 * kinds - 1) * (rows @ weights + bias)
        return float(np.log1p(np.exp(-margins)).sum() + 15 * ((weights * rows.std(0)) ** 2).sum())

    least = loss(weights, bias)
    for step in np.eye(4) * 0.01:
        for sign in (-1, 1):
            assert loss(weights + sign * step[:3], bias + sign * step[3]) > least
    assert weights[0] > 0


def test_rows_that_are_separable_or_all_alike_have_an_answer() -> None:
    for rows in (np.array([[0.0], [1.0]] * 20), np.zeros((40, 1))):
        weights, bias = logistic_regression(rows, np.array([0.0, 1.0] * 20))
        assert np.isfinite(weights).all()
        assert math.isfinite(bias)


def test_a_patch_it_never_saw_is_told_apart_without_asking_the_network() -> None:
    classifier = Network(Brightness(), 3)
    detector = Frequency(classifier)
    evidence = detector.measure(natural(200)).double().numpy()
    fit = json.loads(json.dumps(detector.fit(evidence, NOBODY, None)))
    benign, triggered = natural(100, seed=2), patched(natural(100, seed=2))
    scores = [detector.score(detector.measure(x).double().numpy(), NOBODY, fit) for x in (benign, triggered)]
    assert (scores[1][:, None] > scores[0][None, :]).mean() > 0.97
    assert classifier.calls == []
    passed = BasePass.of(triggered, torch.zeros(100, 3))
    served = detector.scorer(fit).score(passed)
    np.testing.assert_allclose(served.values.numpy(), scores[1], rtol=1e-6, atol=1e-6)
    assert served.exact.all()
    assert classifier.calls == []


def test_the_score_does_not_look_at_the_made_up_half() -> None:
    detector = Frequency(Network(Brightness(), 3))
    evidence = detector.measure(natural(30)).double().numpy()
    fit = detector.fit(evidence, NOBODY, None)
    other = evidence.copy()
    other[:, evidence.shape[1] // 2 :] = 7.0
    assert np.array_equal(detector.score(evidence, NOBODY, fit), detector.score(other, NOBODY, fit))


def test_calibrates_and_repeats_itself() -> None:
    detector = Frequency(Network(Brightness(), 3))
    evidence = detector.measure(natural(60)).double().numpy()
    sample = BenignSample(np.zeros(60, dtype=np.int64), None, {"frequency": evidence})
    first, second = (calibrate(detector, sample, 0.1) for _ in range(2))
    assert first.to_json() == second.to_json()
    assert first.stages == []
    assert Access.LABELS.grants(Frequency.needs)
    assert detector.fixed_thresholds(first.fit).tolist() == [0.0] * 3
    assert np.isinf(detector.maxima(first.fit)).all()
    assert detector.data_free_fit() is None
    with pytest.raises(CalibrationError):
        detector.fit(np.empty((0, 8)), NOBODY, None)


@pytest.mark.parametrize("kind", KINDS, ids=lambda kind: kind.__name__)
@pytest.mark.parametrize("shape", [(3, 32, 32), (1, 28, 28), (3, 5, 9), (1, 1, 1)])
def test_every_kind_of_trigger_fits_every_image(kind: object, shape: tuple[int, int, int]) -> None:
    image = torch.full(shape, 0.5)
    triggered = kind(image, np.random.default_rng(3))  # type: ignore[operator]
    assert triggered.shape == image.shape
    assert triggered.isfinite().all()
    assert torch.equal(image, torch.full(shape, 0.5))
    if shape[1] > 1:
        assert not torch.equal(triggered, image)


def test_a_made_up_trigger_depends_on_the_image_alone() -> None:
    images = natural(40)
    triggered = with_synthetic_trigger(images)
    assert torch.equal(with_synthetic_trigger(images[7:9]), triggered[7:9])
    assert triggered.min() >= 0
    assert triggered.max() <= 1
    assert ((triggered != images).flatten(1).any(1)).float().mean() > 0.95
    assert with_synthetic_trigger(images[:0]).shape == (0, 3, 16, 16)
