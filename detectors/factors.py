"""The engine for classifiers that multiply their layers themselves, such as graphs in another runtime.

In eval mode BN(ωγ, ωβ) = ω · BN(γ, β) (Hou et al., ICML 2024, section 4.2), so a variant is the plain network
with what its last layers give times ω. Every row of a batch has factors of its own: variants run together.
"""

from collections.abc import Callable, Sequence
from typing import Protocol, runtime_checkable

import torch
from torch import Tensor

from detectors.amplification import check_counts
from detectors.base import InputError, UnsupportedNetwork
from detectors.copies import rows_at_once

__all__ = ["Amplifiable", "Factors"]

TOLERANCES = (1e-4, 1e-2)
"""Largest differences of a logit, as a share of the largest: of the plain network, and of amplified ones,
which are so steep that another batch size alone moves their logits (docs/adr/0003)."""


@runtime_checkable
class Amplifiable(Protocol):
    """A classifier that gives no network, yet amplifies its BatchNorm layers when told to."""

    @property
    def amplifiable(self) -> Sequence[str]:
        """The names of its layers in execution order."""
        ...

    def amplifier(self, layers: Sequence[str]) -> Callable[[Tensor, Tensor], Tensor]:
        """(images (B, C, H, W), factors (B, len(layers))) → logits (B, K) with what each of `layers` gives
        times its factor."""
        ...

    def logits(self, images: Tensor) -> Tensor: ...


class Factors:
    """The variants of an `Amplifiable`; satisfies `detectors.amplification.Amplified`."""

    engine = "factors"

    def __init__(
        self,
        classifier: Amplifiable,
        omega: float,
        counts: Sequence[int],
        order: Sequence[str],
        example: Tensor,
    ) -> None:
        """`order` as the classifier gives it. Raises `InputError`, and `UnsupportedNetwork` where the logits
        of `example` (B ≥ 1, C, H, W) at factor 1, or of one image alone, are not the plain ones."""
        check_counts(omega, counts, len(order))
        self.classifier, self.omega, self.counts = classifier, float(omega), tuple(counts)
        self.layers = max(counts)
        self._amplified = classifier.amplifier(order[-self.layers :])
        self._check(example)

    def base(self, images: Tensor, first: Sequence[int] = ()) -> tuple[Tensor, Tensor]:
        return self.classifier.logits(images), images

    def variants(self, forks: Tensor, which: Sequence[int], rows: Tensor | None = None) -> Tensor:
        """Logits (len(which), R, K); at most `rows_at_once` rows in one call, or R."""
        images = forks if rows is None else forks[rows]
        if not which or len(images) == 0:
            raise InputError("name at least one variant and at least one image to run it on")
        together = max(1, rows_at_once(images) // len(images))
        groups = [which[start : start + together] for start in range(0, len(which), together)]
        logits = [self._run(images, group) for group in groups]
        return torch.cat(logits).view(len(which), len(images), -1)

    def _run(self, images: Tensor, which: Sequence[int]) -> Tensor:
        factors = torch.cat([self._factors(self.counts[number], len(images)) for number in which])
        return self._amplified(images.repeat(len(which), 1, 1, 1), factors)

    def _factors(self, count: int, rows: int) -> Tensor:
        """(rows, layers): ω for the last `count` layers, else 1."""
        factors = torch.ones(rows, self.layers)
        factors[:, self.layers - count :] = self.omega
        return factors

    def _check(self, example: Tensor) -> None:
        plain = self.classifier.logits(example)
        same = self._amplified(example, torch.ones(len(example), self.layers))
        together = self.variants(example, range(len(self.counts)))
        alone = self.variants(example[-1:], range(len(self.counts)))
        pairs = ((same, plain), (together[:, -1:], alone))
        for (found, expected), tolerance in zip(pairs, TOLERANCES, strict=True):
            if not bool(((found - expected).abs() <= tolerance * expected.abs().amax()).all()):
                raise UnsupportedNetwork(
                    "self-check failed: logits at factor 1 are not the plain ones, or depend on the batch"
                )
