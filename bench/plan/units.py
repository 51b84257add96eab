"""What people write for a rate and for a time: `2000/s`, `100ms`."""

import math
import re

__all__ = ["PlanError", "duration", "rate"]

NUMBER = r"\s*([0-9]*\.?[0-9]+(?:e[+-]?[0-9]+)?)\s*"
PER = {"s": 1.0, "min": 60.0, "h": 3600.0}
SECONDS = {"us": 1e-6, "ms": 1e-3, "s": 1.0}


class PlanError(Exception):
    """Raised where nothing can be planned: nonsense asked for, nothing measured, or an aim out of reach."""


def rate(text: str) -> float:
    """Images a second: `2000/s`, `120000/min`, `7.2e6/h`. Raises `PlanError`."""
    found = re.fullmatch(NUMBER + r"/\s*(s|min|h)\s*", text)
    if found is None or not 0 < (value := float(found[1]) / PER[found[2]]) < math.inf:
        raise PlanError(
            f"a rate is a number of images and a time, like 2000/s, 900/min or 1e6/h, not {text!r}"
        )
    return value


def duration(text: str) -> float:
    """Seconds: `100ms`, `0.1s`, `500us`. Raises `PlanError`."""
    found = re.fullmatch(NUMBER + r"(us|ms|s)\s*", text)
    if found is None or not 0 < (value := float(found[1]) * SECONDS[found[2]]) < math.inf:
        raise PlanError(f"a time is a number with a unit, like 100ms, 0.1s or 500us, not {text!r}")
    return value
