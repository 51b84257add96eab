"""Collapse and cost, by hand and against the served scorers."""

import numpy as np
import pytest
import torch

from detectors.base import BasePass
from detectors.behaviour import Costed, Describing, collapse, sink_class
from detectors.ibd_psc import IbdPsc
from detectors.profile import Profile
from detectors.scale_up import ScaleUp
from tests.detectors.classifiers import Network, bn_chain

IMAGES = torch.rand(60, 1, 3, 3, generator=torch.Generator().manual_seed(3))


def test_a_collapse_by_hand() -> None:
    answers, predicted = np.array([2.0, 2, 2, 1]), np.array([0, 1, 2, 2])
    assert sink_class(answers) == (2, 0.75)
    assert collapse("scaling", 3.0, answers, predicted) == {
        "by": "scaling", "strength": 3.0, "label": 2, "share": 0.75, "plain_share": 0.5,
    }  # fmt: skip


def test_scaling_is_described_by_what_the_classifier_says() -> None:
    classifier = Network(bn_chain(), 4)
    detector = ScaleUp(classifier, (5, 2))
    predicted = classifier.logits(IMAGES).argmax(1).numpy()
    found = detector.describe(detector.measure(IMAGES).double().numpy(), predicted, {})["collapse"]
    assert [each["strength"] for each in found] == [2, 5]
    for each in found:
        answers = classifier.logits((IMAGES * each["strength"]).clamp(0, 1)).argmax(1)
        assert each["share"] == (answers == each["label"]).double().mean().item()
        assert each["share"] == answers.bincount().max().item() / 60


def test_amplification_is_described_for_every_depth() -> None:
    network = bn_chain(7)
    detector = IbdPsc(Network(network, 4), IMAGES[:2], omega=3.0, n=2, xi=0.2)
    predicted = network(IMAGES).argmax(1).numpy()
    evidence = detector.measure(IMAGES).double().numpy()
    fit = detector.fit(evidence, predicted, None)
    found = detector.describe(evidence, predicted, fit)
    assert [each["strength"] for each in found["collapse"]] == list(range(1, 8))
    deepest = found["collapse"][fit["k"] + fit["n"] - 2]
    assert (deepest["label"], deepest["share"]) == (fit["sink"]["label"], fit["sink"]["share"])
    assert found["confidence"][3]["layers"] == 4
    assert found["confidence"][3]["median"] == pytest.approx(np.median(evidence[:, 3]))


def test_the_expected_cost_is_what_early_exit_evaluates() -> None:
    """SPC: one pass a scale, counted by the terms that the served scorer really evaluates."""
    classifier = Network(bn_chain(), 4)
    detector = ScaleUp(classifier)
    evidence = detector.measure(IMAGES).double().numpy()
    predicted = classifier.logits(IMAGES).argmax(1).numpy()
    limits = np.full(60, 0.5)
    stages = detector.plan(evidence, predicted, {}, limits)
    cost = detector.cost(evidence, predicted, {}, limits, stages)
    base = BasePass.of(IMAGES, classifier.logits(IMAGES))
    detector.scorer({}, stages).score(base, torch.full((60,), 0.5, dtype=torch.float64))
    assert cost.full == 5
    assert cost.expected == pytest.approx(base.evaluated().double().mean().item())
    assert 0 < cost.expected < 5


def test_psc_costs_less_than_its_passes_because_prefixes_are_shared() -> None:
    classifier = Network(bn_chain(8), 4)
    detector = IbdPsc(classifier, IMAGES[:2], n=5, xi=0.1)
    predicted = classifier.logits(IMAGES).argmax(1).numpy()
    evidence = detector.measure(IMAGES).double().numpy()
    fit = detector.fit(evidence, predicted, None)
    limits = np.ones(60)
    cost = detector.cost(evidence, predicted, fit, limits, [[4], [0, 1, 2, 3]])
    assert 0 < cost.full < 5
    assert cost.expected == 0  # nothing exceeds 1: every verdict is certain at once
    detector.scorer(fit)
    assert detector.cost(evidence, predicted, fit, limits, [[4]]).full == cost.full  # still known afterwards


def test_who_says_what() -> None:
    classifier = Network(bn_chain(), 4)
    psc, spc, profile = IbdPsc(classifier, IMAGES[:2]), ScaleUp(classifier), Profile(classifier)
    assert all(isinstance(each, Costed) for each in (psc, spc, profile))
    assert [isinstance(each, Describing) for each in (psc, spc, profile)] == [True, True, False]
