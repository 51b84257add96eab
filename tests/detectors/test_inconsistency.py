"""ShrinkPad, DeepSweep and what they share, against hand-computed cases and a slow, obvious reference."""

import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn

from detectors.base import Access, BasePass, InputError
from detectors.copies import logits_of_copies, rows_at_once
from detectors.inconsistency import Inconsistency, lost_confidence
from tests.detectors.classifiers import Network, bn_chain

NOBODY = np.zeros(0, dtype=np.int64)
CHANGES = {
    "dark": lambda images: images * 0.5,
    "flip": lambda images: images.flip(-1),
    "bright": lambda images: (images + 0.4).clamp(0, 1),
    "turn": lambda images: images.transpose(-1, -2),
}


def pictures(count: int, seed: int = 1) -> Tensor:
    return torch.rand(count, 1, 3, 3, generator=torch.Generator().manual_seed(seed))


def chain() -> tuple[Network, Inconsistency]:
    classifier = Network(bn_chain(), 4)
    return classifier, Inconsistency("changes", classifier, CHANGES)


def reference(classifier: Network, image: Tensor) -> float:
    """One image and one change at a time."""
    label = int(classifier.logits(image[None]).argmax())
    lost = []
    for change in CHANGES.values():
        logits = classifier.logits(change(image[None]))[0].tolist()
        exponentials = [math.exp(z - max(logits)) for z in logits]
        lost.append(1 - exponentials[label] / sum(exponentials))
    return sum(lost) / len(lost)


def test_agrees_with_the_reference() -> None:
    classifier, detector = chain()
    images = pictures(20)
    expected = [reference(classifier, image) for image in images]
    assert np.std(expected) > 0.05
    evidence = detector.measure(images).double().numpy()
    assert detector.score(evidence, NOBODY, {}).tolist() == pytest.approx(expected, abs=1e-5)
    served = detector.scorer({}).score(BasePass.of(images, classifier.logits(images)))
    assert served.values.tolist() == pytest.approx(expected, abs=1e-5)


def test_lost_confidence_by_hand() -> None:
    """Odds of 3 to 1 for the label leave ¾ of the confidence: a quarter is lost."""
    logits = torch.tensor([[[math.log(3), 0.0], [0.0, 0.0]], [[0.0, math.log(9)], [math.nan, 0.0]]])
    lost = lost_confidence(logits, torch.tensor([0, 1]))
    torch.testing.assert_close(lost, torch.tensor([[0.25, 0.5], [0.9, 1.0]]))
    assert lost_confidence(torch.full((1, 1, 2), math.inf), torch.tensor([0])).tolist() == [[1.0]]


def test_a_trigger_that_the_changes_destroy_scores_higher() -> None:
    class Corner(nn.Module):
        """Class 1, surely, where the first pixel is white; else class 0 for bright images."""

        def forward(self, images: Tensor) -> Tensor:
            lit = (images[:, 0, 0, 0] > 0.95).float()
            return torch.stack([torch.full_like(lit, 3.0), lit * 20], 1)

    detector = Inconsistency("flips", Network(Corner(), 2), {"flip": lambda images: images.flip(-1)})
    benign = pictures(5) * 0.9
    triggered = benign.clone()
    triggered[..., 0, 0] = 1.0
    before, after = (detector.score(detector.measure(x).numpy(), NOBODY, {}) for x in (benign, triggered))
    assert before.max() < 0.06
    assert after.min() > 0.9


@settings(max_examples=25, deadline=None)
@given(st.integers(0, 1000), st.floats(0.0, 1.0))
def test_early_verdicts_are_the_full_ones(seed: int, threshold: float) -> None:
    classifier, detector = chain()
    images = pictures(8, seed)
    limits = torch.full((8,), threshold, dtype=torch.float64)
    evidence = detector.measure(images).double().numpy()
    stages = detector.plan(evidence, NOBODY, {}, limits.numpy())
    assert sorted(term for stage in stages for term in stage) == [0, 1, 2, 3]
    scorer = detector.scorer({}, stages)
    full = scorer.score(BasePass.of(images, classifier.logits(images)))
    early = scorer.score(BasePass.of(images, classifier.logits(images)), limits)
    assert torch.equal(full.values > limits, early.values > limits)
    assert ((full.values >= 0) & (full.values <= 1)).all()


def test_copies_share_forward_passes_of_bounded_size() -> None:
    classifier, detector = chain()
    passed = BasePass.of(pictures(10), classifier.logits(pictures(10)))
    classifier.calls.clear()
    detector.scorer({}).score(passed)
    assert classifier.calls == [40]
    classifier.calls.clear()
    logits = logits_of_copies(classifier, pictures(400), list(CHANGES.values()))
    assert classifier.calls == [800, 800]
    torch.testing.assert_close(logits[3], classifier.logits(pictures(400).transpose(-1, -2)))
    assert rows_at_once(torch.zeros(1, 3, 32, 32)) == 1024
    assert rows_at_once(torch.zeros(1, 3, 224, 224)) == 55
    assert rows_at_once(torch.zeros(1, 3, 4000, 4000)) == 1


def test_settings_and_limits() -> None:
    classifier, detector = chain()
    assert detector.settings() == {"changes": list(CHANGES)}
    assert Access.PROBABILITIES.grants(detector.needs)
    assert detector.fit(np.ones((1, 4)), NOBODY, None) == {}
    assert detector.maxima({}).tolist() == [1.0] * 4
    assert detector.fixed_thresholds({}).tolist() == [0.5] * 4
    assert detector.data_free_fit() == {}
    with pytest.raises(InputError, match="at least one change"):
        Inconsistency("none", classifier, {})
