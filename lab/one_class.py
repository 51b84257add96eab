"""Other one-class models over the profile's answers, to compare with the one that it has.

Each learns from the same benign answers and is calibrated by the same rules; only the distance differs. They
are the lab's: none is served.
"""

from collections.abc import Callable

import numpy as np

from detectors.base import Fit, Floats, Integers
from detectors.profile import PRIOR_WEIGHT, Profile, ledoit_wolf

__all__ = ["ONE_CLASS", "Forest", "Neighbours", "OwnCovariance"]


class Neighbours(Profile):
    """Mean squared distance to the `count` nearest benign images, in the profile's whitened deviations from
    the class means: no shape is assumed, and every benign image has to be kept."""

    count = 10

    def fit(self, evidence: Floats, predicted: Integers, labels: Integers | None) -> Fit:
        fit = dict(super().fit(evidence, predicted, labels))
        return fit | {"benign": self._whitened(evidence, predicted, fit)}

    def _whitened(self, evidence: Floats, predicted: Integers, fit: Fit) -> Floats:
        whitened: Floats = (evidence - np.array(fit["means"])[predicted]) @ np.array(fit["whitening"]).T
        return whitened

    def score(self, evidence: Floats, predicted: Integers, fit: Fit) -> Floats:
        asked, known = self._whitened(evidence, predicted, fit), fit["benign"]
        squares = (asked**2).sum(1)[:, None] + (known**2).sum(1) - 2 * asked @ known.T
        nearest: Floats = np.partition(squares, self.count, axis=1)[:, : self.count].mean(1)
        return nearest


class OwnCovariance(Profile):
    """As the profile, with a covariance of its own for every class, shrunk towards the common one."""

    def fit(self, evidence: Floats, predicted: Integers, labels: Integers | None) -> Fit:
        fit = dict(super().fit(evidence, predicted, labels))
        centred = evidence - np.array(fit["means"])[predicted]
        common = ledoit_wolf(centred)
        width = evidence.shape[1]
        roots = np.empty((self.classifier.num_classes, width, width))
        for label in range(len(roots)):
            own = centred[predicted == label]
            weight = PRIOR_WEIGHT * width
            covariance = (own.T @ own + weight * common) / (len(own) + weight) + 1e-6 * np.eye(width)
            roots[label] = np.linalg.inv(np.linalg.cholesky(covariance))
        return fit | {"roots": roots}

    def score(self, evidence: Floats, predicted: Integers, fit: Fit) -> Floats:
        centred = evidence - np.array(fit["means"])[predicted]
        whitened = np.einsum("mij,mj->mi", fit["roots"][predicted], centred)
        # The width of a class's cloud counts, as in its Gaussian likelihood.
        logarithms = -2 * np.log(np.diagonal(fit["roots"], axis1=1, axis2=2)).sum(1)
        scores: Floats = (whitened**2).sum(1) + logarithms[predicted]
        return scores


class Forest(Profile):
    """An isolation forest (Liu, Ting and Zhou, ICDM 2008) over the deviations from the class means."""

    def fit(self, evidence: Floats, predicted: Integers, labels: Integers | None) -> Fit:
        from sklearn.ensemble import IsolationForest

        fit = dict(super().fit(evidence, predicted, labels))
        centred = evidence - np.array(fit["means"])[predicted]
        return fit | {"forest": IsolationForest(n_estimators=100, random_state=0).fit(centred)}

    def score(self, evidence: Floats, predicted: Integers, fit: Fit) -> Floats:
        scores: Floats = -fit["forest"].score_samples(evidence - np.array(fit["means"])[predicted])
        return scores


ONE_CLASS: dict[str, Callable[..., Profile]] = {
    "common covariance": Profile,
    "own covariances": OwnCovariance,
    "nearest neighbours": Neighbours,
    "isolation forest": Forest,
}
"""By name, the profile's own first; each takes a classifier and a ladder of one rung."""
