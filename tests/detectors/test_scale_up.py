"""SCALE-UP against hand-computed cases and a slow, obvious reference."""

import numpy as np
import pytest
import torch
from torch import Tensor

from detectors.base import Access, BasePass, CalibrationError, InputError
from detectors.scale_up import SIGMA_FLOOR, ScaleUp, scaled_copies
from tests.detectors.classifiers import Brightness, Network, bn_chain


def grey(*levels: float) -> Tensor:
    return torch.tensor(levels).view(-1, 1, 1, 1).expand(-1, 3, 4, 4).clone()


def base(classifier: Network, images: Tensor) -> BasePass:
    return BasePass.of(images, classifier.logits(images))


def reference_spc(classifier: Network, images: Tensor, scales: tuple[float, ...]) -> list[float]:
    """Equation 1, one image and one scale at a time."""
    scores = []
    for image in images:
        label = classifier.logits(image[None]).argmax().item()
        kept = 0
        for scale in scales:
            copy = image.clone()
            for pixel in copy.view(-1):
                pixel.fill_(min(1.0, pixel.item() * scale))
            kept += classifier.logits(copy[None]).argmax().item() == label
        scores.append(kept / len(scales))
    return scores


def test_copies_are_scaled_and_clipped_in_pixel_space() -> None:
    assert scaled_copies(grey(0.1, 0.5), [1, 3])[:, 0, 0, 0].tolist() == pytest.approx([0.1, 0.5, 0.3, 1.0])


def test_hand_computed_scores() -> None:
    """Brightness 0.05 stays class 0 (< 0.3) times 3 and 5 (0.15, 0.25), is class 1 times 7, 9, 11: 2/5.
    0.31 is class 1; times 3 it is 0.93, class 2: 0/5. White stays white: 5/5."""
    classifier = Network(Brightness(), 3)
    scorer = ScaleUp(classifier).scorer({})
    scores = scorer.score(base(classifier, grey(0.05, 0.31, 1.0)))
    assert scores.values.tolist() == pytest.approx([2 / 5, 0.0, 1.0])
    assert scores.exact.all()


def test_scaling_normalised_tensors_would_give_other_scores() -> None:
    """The commonest error: 0.31 normalised is −0.76; times 3 it is −2.28, class 0 rather than 2."""
    classifier = Network(Brightness(), 3)
    wrong = (grey(0.31) - 0.5) / 0.25 * 3
    assert Brightness()(wrong * 0.25 + 0.5).argmax().item() == 0
    assert classifier.logits(scaled_copies(grey(0.31), [3])).argmax().item() == 2


@pytest.mark.parametrize("scales", [(3.0, 5.0, 7.0, 9.0, 11.0), tuple(map(float, range(2, 12)))])
def test_agrees_with_the_reference_on_random_images(scales: tuple[float, ...]) -> None:
    classifier = Network(bn_chain(), 4)
    images = torch.rand(40, 1, 3, 3, generator=torch.Generator().manual_seed(1)) ** 3
    detector = ScaleUp(classifier, scales)
    expected = reference_spc(classifier, images, scales)
    assert len(set(expected)) > 3  # a reference that always says the same proves nothing
    assert detector.scorer({}).score(base(classifier, images)).values.tolist() == pytest.approx(expected)
    evidence = detector.measure(images).double().numpy()
    assert detector.score(evidence, np.zeros(40, dtype=np.int64), {}).tolist() == pytest.approx(expected)


def test_all_scaled_copies_of_a_request_are_one_batch() -> None:
    classifier = Network(Brightness(), 3)
    images = grey(0.05, 0.31, 1.0)
    passed = base(classifier, images)
    classifier.calls.clear()
    ScaleUp(classifier).scorer({}).score(passed)
    assert classifier.calls == [15]


def test_nspc_is_spc_in_the_units_of_its_class() -> None:
    classifier = Network(bn_chain(), 4)
    images = torch.rand(300, 1, 3, 3, generator=torch.Generator().manual_seed(2)) ** 3
    detector = ScaleUp(classifier, normalised=True)
    predicted = classifier.logits(images).argmax(1).numpy()
    evidence = detector.measure(images).double().numpy()
    fit = detector.fit(evidence, predicted, None)
    spc = evidence[:, :5].mean(1)
    for label in np.unique(predicted):
        scores = detector.score(evidence, predicted, fit)[predicted == label]
        mean, std = fit["mean"][label], fit["std"][label]
        np.testing.assert_allclose(scores, (spc[predicted == label] - mean) / std)
        if (predicted == label).sum() > 100:  # shrunk towards the pool, but not far
            assert abs(mean - spc[predicted == label].mean()) < 0.05
    served = detector.scorer(fit).score(base(classifier, images))
    np.testing.assert_array_equal(served.values.numpy(), detector.score(evidence, predicted, fit))


def test_sigma_zero_and_absent_classes_divide_by_nothing() -> None:
    """Every benign image scores 1 and class 2 has none: σ = 0 and 0/0 in the paper's formula."""
    detector = ScaleUp(Network(Brightness(), 3), normalised=True)
    evidence, predicted = np.ones((50, 5)), np.array([0, 1] * 25)
    fit = detector.fit(evidence, predicted, None)
    assert fit["std"] == [SIGMA_FLOOR] * 3
    assert fit["mean"] == pytest.approx([1.0, 1.0, 1.0])
    scores = detector.score(np.vstack([np.ones(5), np.zeros(5)]), np.array([2, 2]), fit)
    assert scores.tolist() == pytest.approx([0.0, -1 / SIGMA_FLOOR])


def test_shrinkage_by_hand() -> None:
    """Class 0: ten images of SPC 1; class 1: ten of SPC 0. Pooled mean ½, variance ¼, prior weight 10:
    means (10 + 5) / 20 = ¾ and 5 / 20 = ¼; variances (10 · 1/16 + 10 · ¼) / 20 = 5/32."""
    detector = ScaleUp(Network(Brightness(), 3), normalised=True)
    evidence = np.repeat([[1.0] * 5, [0.0] * 5], 10, axis=0)
    fit = detector.fit(evidence, np.repeat([0, 1], 10), None)
    assert fit["mean"][:2] == pytest.approx([0.75, 0.25])
    assert fit["std"][:2] == pytest.approx([(5 / 32) ** 0.5] * 2)


def test_spc_and_nspc_share_their_scaled_copies() -> None:
    classifier = Network(Brightness(), 3)
    passed = base(classifier, grey(0.05, 0.31))
    classifier.calls.clear()
    ScaleUp(classifier).scorer({}).score(passed)
    fit = {"mean": [0.5] * 3, "std": [0.1] * 3}
    nspc = ScaleUp(classifier, normalised=True).scorer(fit).score(passed)
    assert classifier.calls == [10]
    assert nspc.values.tolist() == pytest.approx([-1.0, -5.0])


def test_early_exit_stops_at_certainty() -> None:
    """At T = 0.3, SPC of 0.31 is cleared only after four misses; white is caught after two hits."""
    classifier = Network(Brightness(), 3)
    detector = ScaleUp(classifier)
    scorer = detector.scorer({})
    scorer.stages = [[0], [1], [2], [3], [4]]
    passed = base(classifier, grey(0.31, 1.0))
    classifier.calls.clear()
    scores = scorer.score(passed, torch.tensor([0.3, 0.3], dtype=torch.float64))
    assert classifier.calls == [2, 2, 1, 1]
    assert scores.values.tolist() == pytest.approx([0.2, 0.4])
    assert scores.exact.tolist() == [False, False]


def test_needs_labels_only_and_says_what_is_wrong() -> None:
    classifier = Network(Brightness(), 3)
    assert Access.LABELS.grants(ScaleUp.needs)
    for scales in ((), (3, 0), (-1,), (float("nan"),)):
        with pytest.raises(InputError, match="scales"):
            ScaleUp(classifier, scales)
    with pytest.raises(CalibrationError):
        ScaleUp(classifier, normalised=True).fit(np.empty((0, 5)), np.empty(0, dtype=np.int64), None)


def test_the_papers_threshold_in_both_units() -> None:
    classifier = Network(Brightness(), 3)
    assert ScaleUp(classifier).fixed_thresholds({}).tolist() == [0.5] * 3
    fit = {"mean": [0.5, 0.7, 0.3], "std": [0.1, 0.1, 0.1]}
    assert ScaleUp(classifier, normalised=True).fixed_thresholds(fit).tolist() == pytest.approx([0, -2, 2])
