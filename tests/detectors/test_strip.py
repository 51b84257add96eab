"""STRIP against hand-computed entropies and a slow, obvious reference."""

import json
import math
from collections import Counter

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn

from detectors.base import Access, BasePass, CalibrationError, InputError
from detectors.calibration import BenignSample, calibrate
from detectors.references import REFERENCES, keep_references, unpack, with_references
from detectors.strip import Strip, certainty, convex, superimposed
from tests.detectors.classifiers import Network, bn_chain

N = 5
NOBODY = np.zeros(0, dtype=np.int64)


def pictures(count: int, seed: int = 1) -> Tensor:
    return torch.rand(count, 1, 3, 3, generator=torch.Generator().manual_seed(seed))


def ready(classifier: Network, overlays: int = N) -> Strip:
    strip = Strip(classifier, overlays)
    bound = with_references(strip, keep_references([strip], pictures(overlays, seed=7)))
    assert isinstance(bound, Strip)
    return bound


def reference_scores(classifier: Network, images: Tensor, overlays: Tensor) -> list[float]:
    """One image, one overlay and one class at a time: mean over overlays of the entropy over classes."""
    scores = []
    for image in images:
        entropies = []
        for overlay in overlays:
            mixed = torch.empty_like(image)
            for i, (a, b) in enumerate(zip(image.flatten(), overlay.flatten(), strict=True)):
                mixed.view(-1)[i] = 0.5 * a + 0.5 * b
            logits = classifier.logits(mixed[None])[0].tolist()
            total = sum(math.exp(z - max(logits)) for z in logits)
            shares = [math.exp(z - max(logits)) / total for z in logits]
            entropies.append(-sum(p * math.log(p) for p in shares if p > 0))
        scores.append(1 - sum(entropies) / len(entropies) / math.log(len(logits)))
    return scores


def test_entropy_is_over_classes_by_hand() -> None:
    """p = (½, ½, 0, 0): H = log 2, certainty ½. Sure: 1. Uniform: 0."""
    logits = torch.tensor([[0.0, 0.0, -1e9, -1e9], [50.0, 0.0, 0.0, 0.0], [3.0, 3.0, 3.0, 3.0]])
    assert certainty(logits).tolist() == pytest.approx([0.5, 1.0, 0.0], abs=1e-6)


def test_entropy_across_blends_would_say_something_else() -> None:
    """The known error: two sure but different answers are low entropy each, though their mean is not."""
    logits = torch.tensor([[50.0, 0.0], [0.0, 50.0]])
    assert certainty(logits).mean().item() == pytest.approx(1.0)
    assert certainty(logits.softmax(1).mean(0).log()).item() == pytest.approx(0.0, abs=1e-6)


def test_blends_by_hand_in_pixel_space() -> None:
    image, overlay = torch.tensor([0.2, 1.0]), torch.tensor([0.6, 1.0])
    assert convex(image, overlay).tolist() == pytest.approx([0.4, 1.0])
    assert superimposed(image, overlay).tolist() == pytest.approx([0.8, 1.0])


def test_the_blend_is_a_setting() -> None:
    classifier, images = Network(bn_chain(), 4), pictures(3)
    plain, added = (Strip(classifier, N, how) for how in ("convex", "superimposed"))
    kept = keep_references([plain], pictures(N, seed=7))
    overlay = unpack(kept["strip"][REFERENCES])[2]
    expected = certainty(classifier.logits((images + overlay).clamp(0, 1)))
    torch.testing.assert_close(with_references(added, kept).measure(images)[:, 2], expected)
    assert not torch.equal(
        with_references(added, kept).measure(images), with_references(plain, kept).measure(images)
    )
    assert added.settings() != plain.settings()


def test_agrees_with_the_reference() -> None:
    classifier = Network(bn_chain(), 4)
    strip, images = ready(classifier), pictures(12)
    assert strip.kept is not None
    expected = reference_scores(classifier, images, unpack(strip.kept[REFERENCES]))
    assert np.std(expected) > 0.01  # a reference that always says the same proves nothing
    evidence = strip.measure(images).double().numpy()
    assert strip.score(evidence, NOBODY, {}).tolist() == pytest.approx(expected, abs=1e-5)
    fit = json.loads(json.dumps(strip.fit(evidence, NOBODY, None)))
    served = Strip(classifier, N).scorer(fit).score(BasePass.of(images, classifier.logits(images)))
    assert served.values.tolist() == pytest.approx(expected, abs=1e-5)
    assert served.exact.all()


def test_a_trigger_that_outlives_blending_scores_higher_than_what_it_covers() -> None:
    class Triggered(nn.Module):
        """Class 3, surely, where the corner pixel is bright even in a blend; else no idea."""

        def forward(self, images: Tensor) -> Tensor:
            lit = (images[:, 0, 0, 0] > 0.5).float()
            return lit[:, None] * torch.tensor([0.0, 0.0, 0.0, 40.0])

    classifier = Network(Triggered(), 4)
    strip = ready(classifier)
    benign = pictures(6)
    benign[:, 0, 0, 0] = 0.0
    triggered = benign.clone()
    triggered[:, 0, 0, 0] = 1.0
    scores = [strip.score(strip.measure(each).double().numpy(), NOBODY, {}) for each in (benign, triggered)]
    assert scores[1].min() == pytest.approx(1.0)
    assert scores[0].max() < 0.5


def test_all_blends_of_a_batch_share_few_large_forward_passes() -> None:
    classifier = Network(bn_chain(), 4)
    strip, images = ready(classifier), pictures(10)
    classifier.calls.clear()
    strip.measure(images)
    assert classifier.calls == [50]
    classifier.calls.clear()
    strip.measure(pictures(400))
    assert Counter(classifier.calls) == Counter({800: 2, 400: 1})  # never more than 1024 rows


@settings(max_examples=25, deadline=None)
@given(st.integers(0, 1000), st.floats(0.0, 1.0))
def test_early_verdicts_are_the_full_ones(seed: int, threshold: float) -> None:
    classifier = Network(bn_chain(), 4)
    strip, images = ready(classifier), pictures(8, seed)
    evidence = strip.measure(images).double().numpy()
    fit = strip.fit(evidence, NOBODY, None)
    limits = torch.full((8,), threshold, dtype=torch.float64)
    scorer = strip.scorer(fit, strip.plan(evidence, NOBODY, fit, limits.numpy()))
    full = scorer.score(BasePass.of(images, classifier.logits(images)))
    early = scorer.score(BasePass.of(images, classifier.logits(images)), limits)
    assert torch.equal(full.values > limits, early.values > limits)
    torch.testing.assert_close(early.values[early.exact], full.values[early.exact])
    assert ((full.values >= 0) & (full.values <= 1)).all()


def test_an_image_alone_gets_the_score_it_gets_in_company() -> None:
    strip, images = ready(Network(bn_chain(), 4)), pictures(6)
    torch.testing.assert_close(torch.cat([strip.measure(i[None]) for i in images]), strip.measure(images))


def test_answers_that_are_no_numbers_are_suspicious() -> None:
    logits = torch.tensor([[math.nan, 0.0], [math.inf, 0.0], [-math.inf, 0.0]])
    assert certainty(logits).tolist() == [1.0, 1.0, 1.0]
    assert certainty(torch.zeros(2, 1)).isfinite().all()  # a single class


def test_the_papers_threshold_is_what_a_hundredth_of_normal_scores_exceeds() -> None:
    strip = ready(Network(bn_chain(), 4))
    evidence = np.array([[0.1] * N, [0.3] * N])  # mean 0.2, deviation 0.1
    fit = strip.fit(evidence, NOBODY, None)
    assert strip.fixed_thresholds(fit).tolist() == pytest.approx([0.2 + 0.2326] * 4)
    assert strip.maxima(fit).tolist() == [1.0] * 4


def test_calibrates_and_says_what_is_missing() -> None:
    classifier = Network(bn_chain(), 4)
    strip, images = ready(classifier), pictures(60)
    predicted = classifier.logits(images).argmax(1).numpy()
    sample = BenignSample(predicted, None, {"strip": strip.measure(images).double().numpy()})
    part = calibrate(strip, sample, 0.1)
    assert sorted(term for stage in part.stages for term in stage) == list(range(N))
    assert part.settings == {"overlays": N, "blend": "convex"}
    assert Access.PROBABILITIES.grants(Strip.needs)
    for wrong in (0, 101):
        with pytest.raises(InputError, match="overlays"):
            Strip(classifier, wrong)
    with pytest.raises(CalibrationError, match="set some aside"):
        Strip(classifier).measure(images)
    with pytest.raises(CalibrationError, match="no overlays"):
        Strip(classifier).scorer({"mean": 0.0, "std": 1.0})
    with pytest.raises(CalibrationError, match="benign images"):
        strip.fit(np.empty((0, N)), NOBODY, None)
    assert Strip(classifier).data_free_fit() is None
