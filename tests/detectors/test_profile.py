"""The consistency profile against hand-computed cases, scikit-learn and a slow reference."""

import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.covariance import ledoit_wolf as sklearn_ledoit_wolf

from detectors.base import Access, BasePass, CalibrationError, InputError
from detectors.calibration import BenignSample, calibrate
from detectors.probes import Ladder, probes_named
from detectors.profile import LARGEST_LOG_ODDS, Profile, ledoit_wolf, log_odds
from tests.detectors.classifiers import Brightness, Network, bn_chain

SIX = probes_named(["flip", "blur", "shift", "rotate", "shrink", "noise"])
LADDER = Ladder.of(["flip", "shift"], ["blur"], ["rotate", "noise"], clears=0.5)
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
    detector = Profile(classifier, SIX)
    predicted = classifier.logits(IMAGES).argmax(1).numpy()
    evidence = detector.measure(IMAGES).double().numpy()
    fit = detector.fit(evidence, predicted, None)
    means, precision = np.array(fit["means"]), np.array(fit["whitening"]).T @ np.array(fit["whitening"])
    for number in range(0, 120, 17):
        image, label = IMAGES[number : number + 1], torch.tensor([predicted[number]])
        profile = [log_odds(classifier.logits(image), label).item()]
        profile += [log_odds(classifier.logits(probe.apply(image)), label).item() for probe in SIX]
        difference = np.array(profile) - means[predicted[number]]
        expected = difference @ precision @ difference
        assert detector.score(evidence, predicted, fit)[number] == pytest.approx(expected, rel=1e-3)
    served = detector.scorer(fit).score(BasePass.of(IMAGES, classifier.logits(IMAGES)))
    np.testing.assert_allclose(served.values.numpy(), detector.score(evidence, predicted, fit), rtol=1e-5)
    assert served.exact.all()


def test_an_image_that_answers_unlike_its_class_scores_high() -> None:
    """Two classes with opposite profiles: the other class's usual profile is unusual here."""
    detector = Profile(Network(Brightness(), 3), probes_named(["flip"]))
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


def test_the_probes_of_a_rung_are_one_batch_and_cleared_images_are_asked_no_more() -> None:
    classifier = Network(bn_chain(), 4)
    detector = Profile(classifier, LADDER)
    evidence, predicted = measured(detector)
    fit = detector.fit(evidence, predicted, None)
    distances = detector._distances(evidence, predicted, fit)
    gates = np.array(fit["gates"])[predicted]
    after_one = int((distances[:, 0] > gates[:, 0]).sum())
    after_two = int(((distances[:, :2] > gates).all(1)).sum())
    assert 0 < after_two < after_one < len(IMAGES)
    base = BasePass.of(IMAGES, classifier.logits(IMAGES))
    classifier.calls.clear()
    limits = torch.full((len(IMAGES),), 1e9, dtype=torch.float64)
    scores = detector.scorer(fit).score(base, limits)
    assert classifier.calls == [2 * len(IMAGES), after_one, 2 * after_two]
    assert scores.exact.all()
    assert int(base.evaluated().sum()) == 2 * len(IMAGES) + after_one + 2 * after_two


def measured(detector: Profile) -> tuple[np.ndarray, np.ndarray]:
    """Evidence and predictions of IMAGES."""
    return detector.measure(IMAGES).double().numpy(), detector.classifier.logits(IMAGES).argmax(1).numpy()


def slow_score(profile: np.ndarray, label: int, fit: dict, ends: tuple[int, ...]) -> float:
    """One image: up the ladder with a distance of its own at every rung, each solved afresh."""
    root = np.linalg.inv(np.array(fit["whitening"]))
    difference = profile - np.array(fit["means"])[label]
    for rung, end in enumerate(ends):
        width = end + 1
        covariance = root[:width, :width] @ root[:width, :width].T
        distance = float(difference[:width] @ np.linalg.solve(covariance, difference[:width]))
        if rung == len(ends) - 1 or distance <= fit["gates"][label][rung]:
            return distance
    raise AssertionError


def test_a_ladder_scores_as_a_climb_one_image_at_a_time() -> None:
    detector = Profile(Network(bn_chain(), 4), LADDER)
    evidence, predicted = measured(detector)
    fit = dict(detector.fit(evidence, predicted, None))
    expected = [slow_score(v, c, fit, LADDER.ends) for v, c in zip(evidence, predicted, strict=True)]
    np.testing.assert_allclose(detector.score(evidence, predicted, fit), expected, rtol=1e-6)
    served = detector.scorer(fit).score(BasePass.of(IMAGES, detector.classifier.logits(IMAGES)))
    np.testing.assert_allclose(served.values.numpy(), expected, rtol=1e-4)


@given(st.floats(0.02, 60), st.floats(0.1, 0.9))
@settings(max_examples=40, deadline=None)
def test_a_verdict_reached_early_is_the_full_one(threshold: float, clears: float) -> None:
    ladder = Ladder(LADDER.rungs, clears)
    detector = Profile(Network(bn_chain(), 4), ladder)
    evidence, predicted = measured(detector)
    scorer = detector.scorer(detector.fit(evidence, predicted, None))
    logits = detector.classifier.logits(IMAGES)
    full = scorer.score(BasePass.of(IMAGES, logits)).values
    limits = torch.full((len(IMAGES),), threshold, dtype=torch.float64)
    base = BasePass.of(IMAGES, logits)
    early = scorer.score(base, limits)
    clear_cut = (full - threshold).abs() > 1e-3 * threshold  # rows of other batches round differently
    assert torch.equal((early.values > limits)[clear_cut], (full > limits)[clear_cut])
    torch.testing.assert_close(early.values[early.exact], full[early.exact], rtol=1e-3, atol=1e-3)
    assert (early.values <= full * (1 + 1e-3) + 1e-3).all()  # what is not exact is a lower bound


def test_its_cost_counts_who_is_asked_what() -> None:
    classifier = Network(bn_chain(), 4)
    detector = Profile(classifier, LADDER)
    evidence, predicted = measured(detector)
    fit = detector.fit(evidence, predicted, None)
    limits = np.full(len(IMAGES), 3.0)
    cost = detector.cost(evidence, predicted, fit, limits, detector.stages)
    base = BasePass.of(IMAGES, classifier.logits(IMAGES))
    detector.scorer(fit).score(base, torch.from_numpy(limits))
    assert cost.full == 5
    assert cost.expected == pytest.approx(base.evaluated().double().mean().item())


@pytest.mark.parametrize("lost", [0, 1, 3, 5])
def test_an_answer_that_is_no_number_is_never_cleared_by_a_later_rung(lost: int) -> None:
    """Column 0 is the image's own log-odds, 1 and 2 the first rung's probes, 3 the second's."""
    detector = Profile(Network(bn_chain(), 4), LADDER)
    evidence, predicted = measured(detector)
    fit = detector.fit(evidence, predicted, None)
    whole = detector.score(evidence, predicted, fit)
    spoilt = evidence.copy()
    spoilt[:, lost] = np.nan
    scores = detector.score(spoilt, predicted, fit)
    gates, distances = np.array(fit["gates"])[predicted], detector._distances(evidence, predicted, fit)
    cleared_before = np.zeros(len(whole), dtype=bool)
    for rung, end in enumerate(LADDER.ends[:-1]):
        if end < lost:
            cleared_before |= distances[:, rung] <= gates[:, rung]
    np.testing.assert_allclose(scores[cleared_before], whole[cleared_before])
    assert np.isnan(scores[~cleared_before]).all()


@pytest.mark.parametrize("count", [100, 200, 500])
def test_the_budget_holds_from_a_hundred_images_up(count: int) -> None:
    """Benign answers of four labels with heavy tails; 60 calibrations of `count` images, 400 others each. The
    mean rate may exceed α by three standard errors at most."""
    detector = Profile(Network(Brightness(), 4), LADDER)
    rng = np.random.default_rng(7)
    rates = []
    for _ in range(60):
        predicted = rng.integers(0, 4, count + 400)
        answers = rng.standard_t(3, (count + 400, 6)) @ np.triu(np.ones((6, 6))) + predicted[:, None]
        sample = BenignSample(predicted[:count], None, {"profile": answers[:count]})
        part = calibrate(detector, sample, 0.05)
        scores = detector.score(answers[count:], predicted[count:], part.fit)
        rates.append(float((scores > part.thresholds(4)[predicted[count:]]).mean()))
    error = np.std(rates) / math.sqrt(len(rates))
    assert np.mean(rates) <= 0.05 + 3 * error
    assert np.mean(rates) > 0.01  # and it is spent


def test_a_class_without_images_and_no_spread_at_all_stay_finite() -> None:
    detector = Profile(Network(Brightness(), 3), SIX)
    evidence = np.full((10, 7), 3.0)
    fit = detector.fit(evidence, np.zeros(10, dtype=np.int64), None)
    assert fit["means"][2] == pytest.approx([3.0] * 7)
    assert np.isfinite(detector.score(evidence, np.full(10, 2), fit)).all()


@pytest.mark.parametrize("gates", [None, [[1.0]] * 4, [[1.0, 2.0, 3.0]] * 4])
def test_a_fit_with_other_gates_is_refused(gates: list[list[float]] | None) -> None:
    """Imported files hold what somebody wrote: a missing gate must not clear everybody."""
    detector = Profile(Network(bn_chain(), 4), LADDER)
    fit = {key: value for key, value in detector.fit(*measured(detector), None).items() if key != "gates"}
    with pytest.raises(CalibrationError, match="its ladder has 2: calibrate again"):
        detector.scorer(fit | ({} if gates is None else {"gates": gates}))


def test_the_default_keeps_calibrations_of_before_there_were_rungs() -> None:
    probes = Profile(Network(Brightness(), 3)).settings()["probes"]
    assert probes == {
        "flip": "left and right", "blur": "3×3 binomial", "shift": "1/16 of the side", "rotate": "12 degrees",
        "shrink": "to 0.75", "noise": "0.06 of seed 20240229",
    }  # fmt: skip


def test_settings_errors_and_needs() -> None:
    classifier = Network(Brightness(), 3)
    assert not Access.LABELS.grants(Profile.needs)
    settings = Profile(classifier, SIX).settings()
    assert list(settings) == ["probes"]  # without rungs nothing is said of them
    assert list(settings["probes"]) == ["flip", "blur", "shift", "rotate", "shrink", "noise"]
    assert settings["probes"]["rotate"] == "12 degrees"
    assert Profile(classifier, LADDER).settings() | {"probes": None} == {
        "probes": None, "rungs": [2, 3, 5], "clears": 0.5,
    }  # fmt: skip
    with pytest.raises(InputError):
        Profile(classifier, [])
    with pytest.raises(CalibrationError):
        Profile(classifier).fit(np.ones((1, 7)), np.zeros(1, dtype=np.int64), None)
    # χ²(7) has its 99 % quantile at 18.475.
    assert Profile(classifier, SIX).fixed_thresholds({})[0] == pytest.approx(18.475, abs=0.05)
