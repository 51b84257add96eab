"""The engine for classifiers that amplify themselves, by hand and against copies."""

from collections.abc import Callable, Sequence

import pytest
import torch
from torch import Tensor

from detectors.base import AccessError, InputError, UnsupportedNetwork
from detectors.factors import Amplifiable, Factors
from detectors.ibd_psc import IbdPsc


class Product:
    """Logits (0, p) with p the image's first pixel times its factors; layers a (cubed), b (squared), c."""

    network, num_classes = None, 2

    def __init__(self, layers: Sequence[str] = ("a", "b", "c"), *, mixes: bool = False) -> None:
        self.amplifiable, self.mixes, self.asked = tuple(layers), mixes, []

    def logits(self, images: Tensor) -> Tensor:
        return self._logits(images[:, 0, 0, 0])

    def _logits(self, pixels: Tensor) -> Tensor:
        if self.mixes:
            pixels = pixels + 0.5 * pixels.sum()
        return torch.stack([torch.zeros_like(pixels), pixels], dim=1)

    def amplifier(self, layers: Sequence[str]) -> Callable[[Tensor, Tensor], Tensor]:
        assert tuple(layers) == self.amplifiable[-len(layers) :]

        def run(images: Tensor, factors: Tensor) -> Tensor:
            self.asked.append(tuple(factors.shape))
            powers = torch.arange(len(layers), 0, -1)
            return self._logits(images[:, 0, 0, 0] * (factors**powers).prod(1))

        return run


def images(*pixels: float) -> Tensor:
    return torch.tensor(pixels).view(-1, 1, 1, 1)


def test_a_variant_multiplies_what_its_last_layers_give() -> None:
    engine = Factors(Product(), 2.0, [1, 3], ["a", "b", "c"], images(0.1, 0.2))
    logits, forks = engine.base(images(0.5, 1.0, 0.25))
    assert logits[:, 1].tolist() == [0.5, 1.0, 0.25]
    assert engine.variants(forks, [0, 1])[..., 1].tolist() == [[1.0, 2.0, 0.5], [32.0, 64.0, 16.0]]
    assert engine.variants(forks, [1], torch.tensor([2, 0]))[..., 1].tolist() == [[16.0, 32.0]]


def test_variants_run_together_and_only_amplified_layers_are_asked_for() -> None:
    classifier = Product()
    engine = Factors(classifier, 2.0, [1, 2], ["a", "b", "c"], images(0.1))
    classifier.asked.clear()
    engine.variants(images(0.5, 1.0), [0, 1])
    assert classifier.asked == [(4, 2)]  # two variants of two images, two layers


@pytest.mark.parametrize(("which", "rows"), [([], None), ([0], torch.tensor([], dtype=torch.int64))])
def test_nothing_to_run(which: list[int], rows: Tensor | None) -> None:
    engine = Factors(Product(), 2.0, [1], ["a", "b", "c"], images(0.1))
    with pytest.raises(InputError, match="at least one variant"):
        engine.variants(images(0.5), which, rows)


def test_a_network_that_mixes_the_images_of_a_batch_is_refused() -> None:
    with pytest.raises(UnsupportedNetwork, match="depend on the batch"):
        Factors(Product(mixes=True), 2.0, [1], ["a", "b", "c"], images(0.1, 0.9))


def test_ibd_psc_takes_it() -> None:
    """PSC by hand: softmax of (0, p · 2^1, 2^3 or 2^6) at label 1, the mean over the first two."""
    classifier = Product()
    assert isinstance(classifier, Amplifiable)
    detector = IbdPsc(classifier, images(0.1, 0.2), omega=2.0, n=2)
    evidence = detector.measure(images(0.5, 1.0)).double().numpy()
    sigmoid = torch.sigmoid(torch.tensor([[1.0, 4.0, 32.0], [2.0, 8.0, 64.0]])).double().numpy()
    assert evidence[:, :3] == pytest.approx(sigmoid)
    fit = {"k": 1, "n": 2}
    scores = detector.scorer(fit).score(detector.scorer(fit).base(images(0.5, 1.0))).values
    assert scores.tolist() == pytest.approx(sigmoid[:, :2].mean(1).tolist())


def test_without_layers_or_without_access() -> None:
    with pytest.raises(UnsupportedNetwork, match="has none"):
        IbdPsc(Product(layers=()), images(0.1))

    class Labels:
        network, num_classes = None, 2

    with pytest.raises(AccessError, match="needs the classifier's weights"):
        IbdPsc(Labels(), images(0.1))
