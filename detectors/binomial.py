"""How unlikely a count is."""

import math

__all__ = ["binomial_tail"]


def binomial_tail(hits: int, count: int, chance: float) -> float:
    """P(X ≥ hits) for X binomial(count, chance)."""
    if not 0 < chance < 1:
        return float(chance >= 1 or hits <= 0)
    logs = (
        math.lgamma(count + 1) - math.lgamma(k + 1) - math.lgamma(count - k + 1)
        + k * math.log(chance) + (count - k) * math.log1p(-chance)
        for k in range(hits, count + 1)
    )  # fmt: skip
    return min(1.0, math.fsum(map(math.exp, logs)))
