"""Against scipy's exact test."""

import numpy as np
import pytest
from scipy.stats import kstest

from detectors.uniformity import kolmogorov_smirnov


@pytest.mark.parametrize("count", [5, 20, 100, 1000])
@pytest.mark.parametrize("power", [1.0, 0.9, 0.7, 0.4])
def test_like_scipy(count: int, power: float) -> None:
    values = np.random.default_rng(count).random(count) ** power
    exact = kstest(values, "uniform").pvalue
    assert kolmogorov_smirnov(values.tolist()) == pytest.approx(exact, rel=0.25, abs=0.01)


def test_by_hand() -> None:
    """Evenly spread values are as uniform as can be; a hundred of the same are not."""
    assert kolmogorov_smirnov([]) == 1.0
    assert kolmogorov_smirnov([(i + 0.5) / 50 for i in range(50)]) == 1.0
    assert kolmogorov_smirnov([0.5] * 100) < 1e-20
