"""Service times read back: what `plan` has measured and kept, or what `triggerwall bench` has written."""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from bench.contenders import EAGER, EAGER_FAST, EARLY, EARLY_FAST, FULL, FULL_FAST
from bench.plan.service import Front, ServiceTimes
from bench.plan.units import PlanError

__all__ = ["read", "write"]

NAMES = (EAGER, FULL, EARLY["benign"], EAGER_FAST, FULL_FAST, EARLY_FAST["benign"])
UNREADABLE = (KeyError, TypeError, ValueError, IndexError, AttributeError)


def write(services: Sequence[ServiceTimes], file: Path) -> None:
    file.parent.mkdir(parents=True, exist_ok=True)
    content = {"service_times": [service.to_json() for service in services]}
    file.write_text(json.dumps(content, indent=1), encoding="utf-8")


def read(file: Path, network: str | None, loop: float) -> list[ServiceTimes]:
    """From `file`, or from bench.json in that folder. `network` chooses one of several benched; `loop`,
    seconds of the event loop per request, stands for HTTP, which `triggerwall bench` does not measure.

    Raises `PlanError` where it cannot be read or has nothing to plan with.
    """
    file = file / "bench.json" if file.is_dir() else file
    try:
        content = json.loads(file.read_text(encoding="utf-8"))
        if "service_times" in content:
            return [ServiceTimes.from_json(each) for each in content["service_times"]]
        return _benched(content, network, loop)
    except (OSError, UnicodeDecodeError, json.JSONDecodeError) as error:
        raise PlanError(
            f"{file} cannot be read: {error}; `triggerwall bench --out` writes one, and so does --save"
        ) from error
    except UNREADABLE as error:
        raise PlanError(f"{file} holds no measurements that can be planned with: {error!r}") from error


def _benched(content: dict[str, Any], network: str | None, loop: float) -> list[ServiceTimes]:
    networks = list(content["subjects"])
    if network is None and len(networks) > 1:
        raise PlanError(f"several networks were measured, choose one by --network: {', '.join(networks)}")
    network = network or networks[0]
    if network not in networks:
        raise PlanError(f"{network} was not measured; there are: {', '.join(networks)}")
    rows = [row for row in content["rows"] if row["network"] == network and row["seconds"]]
    variants = int(content["subjects"][network]["n"])
    found = []
    for name in NAMES:
        seconds = {int(row["batch"]): row["seconds"] for row in rows if row["contender"] == name}
        if seconds:
            points = tuple((float(size), _mean(seconds[size])) for size in sorted(seconds))
            first = seconds[min(seconds)]
            spread = tuple(float(each) / _mean(first) for each in first)
            most = 1 if name in (EAGER, EAGER_FAST) else 1 + variants
            found.append(ServiceTimes(name, most, points, spread, Front(loop)))
    if not found:
        raise PlanError(f"{network}: nothing was measured that can be planned with")
    return found


def _mean(values: Sequence[float]) -> float:
    return sum(values) / len(values)
