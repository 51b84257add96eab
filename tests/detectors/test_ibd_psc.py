"""IBD-PSC against hand-computed cases and a slow, obvious reference."""

import copy

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from detectors.base import AccessError, CalibrationError, InputError, UnsupportedNetwork
from detectors.ibd_psc import IbdPsc, choose_k, confidence_in, sink_class
from tests.detectors.classifiers import Chain, Network, bn_chain

IMAGES = torch.rand(60, 1, 3, 3, generator=torch.Generator().manual_seed(3))


def reference_variant(network: Chain, count: int, omega: float) -> Chain:
    """The last `count` BatchNorm layers in execution order, γ and β times ω, by the names we know."""
    variant = copy.deepcopy(network)
    for number in range(network.depth - count, network.depth):
        variant.norms[f"norm{number}"].weight.data *= omega
        variant.norms[f"norm{number}"].bias.data *= omega
    return variant


def reference_psc(network: Chain, images: Tensor, k: int, n: int, omega: float) -> list[float]:
    """Equation 3, one image and one network at a time."""
    scores = []
    for image in images:
        label = network(image[None]).argmax().item()
        total = 0.0
        for count in range(k, k + n):
            total += reference_variant(network, count, omega)(image[None]).softmax(1)[0, label].item()
        scores.append(total / n)
    return scores


@pytest.mark.parametrize(("depth", "n", "omega"), [(6, 3, 1.5), (8, 5, 1.5), (5, 5, 2.0), (4, 1, 10.0)])
def test_scores_agree_with_the_reference(depth: int, n: int, omega: float) -> None:
    network = bn_chain(depth)
    detector = IbdPsc(Network(network, 4), IMAGES[:2], omega=omega, n=n, xi=0.1)
    predicted = network(IMAGES).argmax(1).numpy()
    evidence = detector.measure(IMAGES).double().numpy()
    fit = detector.fit(evidence, predicted, None)
    expected = reference_psc(network, IMAGES, fit["k"], n, omega)
    assert np.ptp(expected) > 0.1
    np.testing.assert_allclose(detector.score(evidence, predicted, fit), expected, atol=1e-5)
    scorer = detector.scorer(fit)
    passed = scorer.base(IMAGES)
    assert passed is not None
    np.testing.assert_allclose(scorer.score(passed).values.numpy(), expected, atol=1e-5)


def test_error_rates_and_k_follow_algorithm_1() -> None:
    network = bn_chain(7)
    detector = IbdPsc(Network(network, 4), IMAGES[:2], omega=3.0, n=2, xi=0.2)
    evidence = detector.measure(IMAGES).double().numpy()
    predicted = network(IMAGES).argmax(1)
    rates = [
        (reference_variant(network, i, 3.0)(IMAGES).argmax(1) != predicted).double().mean().item()
        for i in range(1, 8)
    ]
    fit = detector.fit(evidence, predicted.numpy(), None)
    assert fit["error_rates"] == pytest.approx(rates)
    first = next(i for i, rate in enumerate(rates, start=1) if rate > 0.2)
    assert 1 < first <= 6, "the case must exercise the rule"
    assert fit["k"] == first


def test_true_labels_take_the_place_of_predictions() -> None:
    network = bn_chain(4)
    detector = IbdPsc(Network(network, 4), IMAGES[:2], n=2)
    evidence, predicted = detector.measure(IMAGES).double().numpy(), network(IMAGES).argmax(1).numpy()
    wrong = (predicted + 1) % 4  # every prediction is an error: already the first variant exceeds ξ
    assert detector.fit(evidence, predicted, wrong)["k"] == 1


@pytest.mark.parametrize(
    ("rates", "n", "xi", "k", "note"),
    [
        ([0.1, 0.5, 0.7, 0.8, 0.9, 0.9], 2, 0.6, 3, None),
        ([0.1, 0.6, 0.61, 0.8], 2, 0.6, 3, None),  # exceeding is strict
        ([0.7, 0.1, 0.9], 1, 0.6, 1, None),  # the first, though the next is below again
        ([0.1, 0.1, 0.1, 0.1, 0.9, 0.9], 5, 0.6, 2, "lowered from 5 to 2"),
        ([0.1, 0.1, 0.1, 0.1, 0.1, 0.1], 5, 0.6, 2, "no amplification"),
        ([0.1, 0.9, 0.9], 3, 0.6, 1, "lowered from 2 to 1"),
    ],
)
def test_choose_k(rates: list[float], n: int, xi: float, k: int, note: str | None) -> None:
    found, said = choose_k(rates, n, xi)
    assert found == k
    assert (said is None) if note is None else (said is not None and note in said)


def test_exactly_n_networks_of_k_and_more_layers_are_resident() -> None:
    detector = IbdPsc(Network(bn_chain(6), 4), IMAGES[:2], n=3, xi=0.0)
    scorer = detector.scorer({"k": 2, "n": 3})
    assert scorer.amplified.counts == (2, 3, 4)


@pytest.mark.parametrize(("k", "n"), [(1, 10**30), (10**30, 3), (0, 3), (-1, 3), (5, 3), (2, 4), (2, 0)])
def test_a_fit_of_something_else_is_refused_before_networks_are_built(k: int, n: int) -> None:
    detector = IbdPsc(Network(bn_chain(6), 4), IMAGES[:2], n=3, xi=0.0)
    with pytest.raises(CalibrationError, match=r"here n is 3, and k is one of 1\.\.4"):
        detector.scorer({"k": k, "n": n})


def test_fewer_layers_than_networks_lowers_n() -> None:
    detector = IbdPsc(Network(bn_chain(3), 4), IMAGES[:2], n=5)
    assert detector.n == 3
    assert detector.settings()["n"] == 3


def test_confidence_is_the_softmax_at_the_plain_prediction() -> None:
    logits = torch.tensor([[[0.0, 0.0], [1.0, 0.0]], [[0.0, 3.0], [2.0, 0.0]]])  # 2 variants, 2 images
    found = confidence_in(logits, torch.tensor([1, 0]))
    e = np.exp
    expected = [[0.5, e(3) / (1 + e(3))], [e(1) / (1 + e(1)), e(2) / (1 + e(2))]]
    np.testing.assert_allclose(found.numpy(), expected, rtol=1e-6)


def test_the_sink_is_what_predictions_collapse_into() -> None:
    assert sink_class(np.array([3.0, 3.0, 1.0, 3.0])) == (3, 0.75)


def test_start_up_errors_say_what_to_do() -> None:
    plain = nn.Sequential(nn.Flatten(), nn.Linear(9, 4))
    with pytest.raises(UnsupportedNetwork, match="other detectors"):
        IbdPsc(Network(plain, 4), IMAGES[:2])
    blind = Network(bn_chain(), 4)
    blind.network = None
    with pytest.raises(AccessError, match="weights"):
        IbdPsc(blind, IMAGES[:2])
    for wrong in ({"omega": 0.0}, {"omega": -1.5}, {"n": 0}, {"xi": 1.0}, {"omega": float("nan")}):
        with pytest.raises(InputError):
            IbdPsc(Network(bn_chain(), 4), IMAGES[:2], **wrong)  # type: ignore[arg-type]
    with pytest.raises(CalibrationError):
        IbdPsc(Network(bn_chain(), 4), IMAGES[:2]).fit(np.empty((0, 12)), np.empty(0, dtype=np.int64), None)


def test_early_verdicts_equal_full_ones_on_every_image() -> None:
    network = bn_chain(8)
    detector = IbdPsc(Network(network, 4), IMAGES[:2], n=4, xi=0.1)
    images = torch.rand(500, 1, 3, 3, generator=torch.Generator().manual_seed(4))
    scorer = detector.scorer({"k": 3, "n": 4})
    passed = scorer.base(images)
    assert passed is not None
    full = scorer.score(passed).values
    for threshold in (0.2, 0.5, float(full.median()), 0.9):
        limits = torch.full((500,), threshold, dtype=torch.float64)
        fresh = scorer.base(images)
        assert fresh is not None
        early = scorer.score(fresh, limits)
        assert torch.equal(early.values > limits, full > limits)
    assert not early.exact.all()  # at T = 0.9 the deepest network alone clears most
