"""The consistency profile against hand-computed cases, scikit-learn and a slow reference."""

import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.covariance import ledoit_wolf as sklearn_ledoit_wolf

from detectors.base import Access, BasePass, CalibrationError, InputError
from detectors.probes import PROBES, blur, flip, noise, rotate, shift, shrink
from detectors.profile import LARGEST_LOG_ODDS, Profile, ledoit_wolf, log_odds
from tests.detectors.classifiers import Brightness, Network, bn_chain

IMAGES = torch.rand(120, 1, 3, 3, generator=torch.Generator().manual_seed(5))


def test_log_odds_by_hand() -> None:
    """Three classes with p = 0.5, 0.25, 0.25: odds of the first 1, of the second 1/3."""
    logits = torch.tensor([[0.5, 0.25, 0.25]]).log().expand(2, -1) + 7  # a constant changes nothing
    assert log_odds(logits, torch.tensor([0, 1])).tolist() == pytest.approx([0.0, math.log(1 / 3)], abs=1e-6)


def test_log_odds_tell_saturated_confidences_apart_and_stay_finite() -> None:
    logits = torch.tensor([[20.0, 0.0], [25.0, 0.0], [1e4, 0.0], [0.0, 1e4]])
    found = log_odds(logits, torch.zeros(4, dtype=torch.long))
    assert found.tolist() == pytest.approx([20, 25, LARGEST_LOG_ODDS, -LARGEST_LOG_ODDS])
    assert (logits[:2].softmax(1)[:, 0] > 1 - 1e-7).all()  # where the probabilities say nothing any more


@given(st.integers(0, 10**6), st.integers(2, 60), st.integers(1, 8))
@settings(max_examples=60, deadline=None)
def test_ledoit_wolf_agrees_with_scikit_learn(seed: int, rows: int, columns: int) -> None:
    data = np.random.default_rng(seed).standard_normal((rows, columns)) * np.arange(1, columns + 1)
    expected, _ = sklearn_ledoit_wolf(data, assume_centered=True)
    np.testing.assert_allclose(ledoit_wolf(data), expected, rtol=1e-8, atol=1e-10)


def test_scores_agree_with_one_image_and_one_probe_at_a_time() -> None:
    classifier = Network(bn_chain(), 4)
    detector = Profile(classifier)
    predicted = classifier.logits(IMAGES).argmax(1).numpy()
    evidence = detector.measure(IMAGES).double().numpy()
    fit = detector.fit(evidence, predicted, None)
    means, precision = np.array(fit["means"]), np.array(fit["whitening"]).T @ np.array(fit["whitening"])
    for number in range(0, 120, 17):
        image, label = IMAGES[number : number + 1], torch.tensor([predicted[number]])
        profile = [log_odds(classifier.logits(image), label).item()]
        profile += [log_odds(classifier.logits(probe.apply(image)), label).item() for probe in PROBES]
        difference = np.array(profile) - means[predicted[number]]
        expected = difference @ precision @ difference
        assert detector.score(evidence, predicted, fit)[number] == pytest.approx(expected, rel=1e-3)
    served = detector.scorer(fit).score(BasePass.of(IMAGES, classifier.logits(IMAGES)))
    np.testing.assert_allclose(served.values.numpy(), detector.score(evidence, predicted, fit), rtol=1e-5)
    assert served.exact.all()


def test_an_image_that_answers_unlike_its_class_scores_high() -> None:
    """Two classes with opposite profiles: the other class's usual profile is unusual here."""
    detector = Profile(Network(Brightness(), 3), PROBES[:1])
    generator = np.random.default_rng(0)
    predicted = np.repeat([0, 1], 200)
    evidence = np.where(predicted[:, None] == 0, [5.0, 5.0], [5.0, -5.0]) + generator.standard_normal(
        (400, 2)
    )
    fit = detector.fit(evidence, predicted, None)
    usual = detector.score(np.array([[5.0, 5.0]]), np.array([0]), fit)[0]
    swapped = detector.score(np.array([[5.0, -5.0]]), np.array([0]), fit)[0]
    assert usual < 0.1
    assert swapped > 80  # ten standard deviations, squared, less the shrinkage of the mean


def test_all_probes_of_all_images_are_one_batch() -> None:
    classifier = Network(bn_chain(), 4)
    detector = Profile(classifier)
    passed = BasePass.of(IMAGES[:5], classifier.logits(IMAGES[:5]))
    classifier.calls.clear()
    detector.features(passed)
    assert classifier.calls == [5 * len(PROBES)]


def test_a_class_without_images_and_no_spread_at_all_stay_finite() -> None:
    detector = Profile(Network(Brightness(), 3))
    evidence = np.full((10, 7), 3.0)
    fit = detector.fit(evidence, np.zeros(10, dtype=np.int64), None)
    assert fit["means"][2] == pytest.approx([3.0] * 7)
    assert np.isfinite(detector.score(evidence, np.full(10, 2), fit)).all()


def test_settings_errors_and_needs() -> None:
    classifier = Network(Brightness(), 3)
    assert not Access.LABELS.grants(Profile.needs)
    probes = Profile(classifier).settings()["probes"]
    assert list(probes) == ["flip", "blur", "shift", "rotate", "shrink", "noise"]
    assert probes["rotate"] == "12 degrees"
    with pytest.raises(InputError):
        Profile(classifier, [])
    with pytest.raises(CalibrationError):
        Profile(classifier).fit(np.ones((1, 7)), np.zeros(1, dtype=np.int64), None)
    # χ²(7) has its 99 % quantile at 18.475.
    assert Profile(classifier).fixed_thresholds({})[0] == pytest.approx(18.475, abs=0.05)


@pytest.mark.parametrize("probe", PROBES, ids=lambda probe: probe.name)
@pytest.mark.parametrize("shape", [(2, 3, 32, 32), (1, 1, 28, 28), (2, 3, 5, 9), (1, 1, 1, 1)])
def test_probes_keep_shape_and_range_and_repeat_themselves(probe: object, shape: tuple[int, ...]) -> None:
    images = torch.rand(shape, generator=torch.Generator().manual_seed(1))
    once, again = probe.apply(images), probe.apply(images)  # type: ignore[attr-defined]
    assert once.shape == images.shape
    assert once.min() >= 0
    assert once.max() <= 1 + 1e-6
    assert torch.equal(once, again)
    alone = probe.apply(images[:1])  # type: ignore[attr-defined]
    torch.testing.assert_close(alone, once[:1])


def test_probes_by_hand() -> None:
    image = torch.zeros(1, 1, 16, 16)
    image[..., 8, 5] = 1.0
    assert flip(image)[0, 0, 8, 10] == 1
    kernel = torch.tensor([[1, 2, 1], [2, 4, 2], [1, 2, 1]]) / 16
    assert torch.equal(blur(image)[0, 0, 7:10, 4:7], kernel)
    assert shift(image)[0, 0, 9, 6] == 1
    quarter = rotate(image, 90)
    assert quarter.flatten().argmax().item() in (5 * 16 + 7, 10 * 16 + 8)
    assert shrink(torch.full((1, 1, 8, 8), 0.3)).flatten().tolist() == pytest.approx([0.3] * 64)
    assert noise(torch.full((1, 1, 28, 28), 0.5)).std().item() == pytest.approx(0.06, rel=0.1)
