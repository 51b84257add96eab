"""The profile by labels alone: against hand-computed surprises, and early exit against the full score."""

import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn

from detectors.base import Access, BasePass, CalibrationError
from detectors.calibration import BenignSample, calibrate
from detectors.label_profile import LabelProfile
from detectors.probes import Ladder
from tests.detectors.classifiers import Brightness, Network, bn_chain

IMAGES = torch.rand(120, 1, 3, 3, generator=torch.Generator().manual_seed(5))
PROBES = Ladder.of(["flip", "over", "shift", "border", "dim", "x3", "noise"]).probes


def measured(detector: LabelProfile) -> tuple[np.ndarray, np.ndarray]:
    return detector.measure(IMAGES).double().numpy(), detector.classifier.logits(IMAGES).argmax(1).numpy()


def test_shares_and_surprises_by_hand() -> None:
    """Of class 0 the first probe keeps 3 of 4 labels, the second none; class 1 was never seen."""
    detector = LabelProfile(Network(Brightness(), 3), PROBES[:2])
    evidence = np.array([[1.0, 0.0], [1.0, 0.0], [1.0, 0.0], [0.0, 0.0]])
    predicted = np.zeros(4, dtype=np.int64)
    fit = detector.fit(evidence, predicted, None)
    pooled = np.array([4 / 6, 1 / 6])
    own = (np.array([3, 0]) + 5 * pooled) / 9
    assert fit["kept"][0] == pytest.approx(own.tolist())
    assert fit["kept"][1] == pytest.approx(pooled.tolist())
    kept, lost = detector.score(np.array([[1.0, 0.0], [0.0, 1.0]]), np.zeros(2, dtype=np.int64), fit)
    assert kept == pytest.approx(-math.log(own[0]) - math.log(1 - own[1]))
    assert lost == pytest.approx(-math.log(1 - own[0]) - math.log(own[1]))
    assert detector.maxima(fit)[0] == pytest.approx(lost)


def test_evidence_is_agreement_one_probe_at_a_time() -> None:
    classifier = Network(bn_chain(), 4)
    evidence, predicted = measured(LabelProfile(classifier, PROBES))
    for column, probe in enumerate(PROBES):
        for number in range(0, 120, 23):
            label = classifier.logits(probe.apply(IMAGES[number : number + 1])).argmax(1).item()
            assert evidence[number, column] == (label == predicted[number])


@given(st.floats(0.0, 1.0), st.integers(0, 100))
@settings(max_examples=40, deadline=None)
def test_a_verdict_reached_early_is_the_full_one(share: float, seed: int) -> None:
    detector = LabelProfile(Network(bn_chain(), 4), PROBES)
    evidence, predicted = measured(detector)
    fit = detector.fit(evidence, predicted, None)
    limits = torch.from_numpy(share * detector.maxima(fit)[predicted])
    order = np.random.default_rng(seed).permutation(len(PROBES)).tolist()
    scorer = detector.scorer(fit, [order[:2], order[2:3], order[3:]])
    logits = detector.classifier.logits(IMAGES)
    full = scorer.score(BasePass.of(IMAGES, logits))
    np.testing.assert_allclose(full.values.numpy(), detector.score(evidence, predicted, fit))
    assert full.exact.all()
    early = scorer.score(BasePass.of(IMAGES, logits), limits)
    assert torch.equal(early.values > limits, full.values > limits)
    assert torch.equal(early.values[early.exact], full.values[early.exact])


def test_its_cost_counts_who_is_asked_what() -> None:
    classifier = Network(bn_chain(), 4)
    detector = LabelProfile(classifier, PROBES)
    evidence, predicted = measured(detector)
    fit = detector.fit(evidence, predicted, None)
    limits = np.quantile(detector.score(evidence, predicted, fit), 0.9) * np.ones(len(IMAGES))
    stages = detector.plan(evidence, predicted, fit, limits)
    assert sorted(term for stage in stages for term in stage) == list(range(len(PROBES)))
    base = BasePass.of(IMAGES, classifier.logits(IMAGES))
    detector.scorer(fit, stages).score(base, torch.from_numpy(limits))
    cost = detector.cost(evidence, predicted, fit, limits, stages)
    assert cost.full == len(PROBES)
    assert 0 < cost.expected < len(PROBES)
    assert cost.expected == pytest.approx(base.evaluated().double().mean().item())


class Spoilt(nn.Module):
    """Numbers for images whose first pixel is below one half, none for others."""

    def forward(self, images: Tensor) -> Tensor:
        bright = images[:, 0, 0, 0] >= 0.5
        return torch.stack([images.mean((1, 2, 3)), 1 - images.mean((1, 2, 3))], 1).masked_fill(
            bright[:, None], torch.nan
        )


def test_an_answer_that_is_no_number_counts_as_the_rarer_one() -> None:
    images = torch.full((1, 1, 2, 2), 0.4)
    detector = LabelProfile(Network(Spoilt(), 2), Ladder.of(["flip", "x3"]).probes)
    scorer = detector.scorer({"kept": [[0.9, 0.8], [0.9, 0.8]]})
    scores = scorer.score(BasePass.of(images, detector.classifier.logits(images)))
    assert scores.values[0].item() == pytest.approx(-math.log(0.9) - math.log(0.2))


def test_the_budget_holds() -> None:
    """Answers that hang together, as those of hard images do; 60 calibrations of 200, 400 others each."""
    detector = LabelProfile(Network(Brightness(), 3), PROBES)
    rng = np.random.default_rng(3)
    rates = []
    for _ in range(60):
        predicted = rng.integers(0, 3, 600)
        ease = rng.beta(4, 1, (600, 1))
        answers = (rng.random((600, len(PROBES))) < ease).astype(float)
        part = calibrate(detector, BenignSample(predicted[:200], None, {detector.name: answers[:200]}), 0.05)
        scores = detector.score(answers[200:], predicted[200:], part.fit)
        rates.append(float((scores > part.thresholds(3)[predicted[200:]]).mean()))
    assert np.mean(rates) <= 0.05 + 3 * np.std(rates) / math.sqrt(len(rates))


def test_it_needs_labels_and_images() -> None:
    assert Access.LABELS.grants(LabelProfile.needs)
    detector = LabelProfile(Network(Brightness(), 3), PROBES)
    with pytest.raises(CalibrationError):
        detector.fit(np.empty((0, 7)), np.empty(0, dtype=np.int64), None)
    limits = detector.fixed_thresholds({"kept": [[0.5] * 7]})
    assert limits[0] == pytest.approx(7 * math.log(2))  # no answer is more surprising than another
