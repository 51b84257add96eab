"""What is planned, as tables of 80 columns."""

from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from typing import Any

from bench.plan.check import Checked, error
from bench.plan.search import SHARE, Aim, Planned
from bench.plan.service import ServiceTimes
from bench.tables import Grid

__all__ = ["Row", "check_grid", "cost_grid", "disturbed", "plan_grid", "sentences", "to_json"]

HALF = 0.5
DISTURBED = 2.0  # load for each core: the gateway and the load generator alone make less


@dataclass(frozen=True)
class Row:
    """One preset with its plan, or the sentence that says `why_not`."""

    service: ServiceTimes
    planned: Planned | None
    why_not: str = ""


def plan_grid(rows: Sequence[Row], aim: Aim) -> Grid:
    """Replicas, limits and what is expected of them."""
    headings = ("preset", "replicas", "batch_rows", "delay, ms", "p50, ms", "p99, ms", "busy", "batch")
    title = f"{aim.rate:g} images/s, p99 within {1000 * aim.p99:g} ms, {aim.balancer} balancer"
    return Grid(title, headings, [_plan_line(row) for row in rows])


def _plan_line(row: Row) -> tuple[str, ...]:
    if row.planned is None:
        return (row.service.preset, "none", *["–"] * 6)
    fleet, outcome = row.planned.fleet, row.planned.outcome
    return (
        row.service.preset,
        str(fleet.replicas),
        str(fleet.limits.batch_rows),
        f"{1000 * fleet.limits.batch_delay:g}",
        f"{1000 * outcome.percentile(HALF):.1f}",
        f"{1000 * outcome.percentile(SHARE):.1f}",
        f"{outcome.busy:.0%}",
        f"{outcome.images:.1f}",
    )


def cost_grid(rows: Sequence[Row]) -> Grid:
    """What each preset costs: per image, alone and in the largest batch measured, over the first preset."""
    first = rows[0].service
    headings = (
        "preset",
        "rows",
        "1 image, ms",
        "in a batch, ms",
        f"× {first.preset}"[:14],
        "images/s",
        "HTTP, ms",
    )
    return Grid("What an image costs", headings, [_cost_line(row.service, first) for row in rows])


def _cost_line(service: ServiceTimes, first: ServiceTimes) -> tuple[str, ...]:
    batched = _batched(service)
    front = service.front.loop + service.front.aside
    return (
        service.preset,
        str(service.rows),
        f"{1000 * service.seconds(1):.2f}",
        f"{1000 * batched:.2f} (of {service.points[-1][0]:.0f})",
        f"{batched / _batched(first):.2f}",
        f"{service.capacity(int(service.points[-1][0])):.0f}",
        f"{1000 * front:.2f}",
    )


def _batched(service: ServiceTimes) -> float:
    images, seconds = service.points[-1]
    return seconds / images


def check_grid(checked: Sequence[Checked]) -> Grid:
    """Simulated beside measured, and by how much the simulation is off."""
    headings = ("preset, images/s", "p50, ms", "measured", "error", "p99, ms", "measured", "error", "load")
    return Grid(
        "One gateway on this machine, simulated and measured", headings, [_check_line(c) for c in checked]
    )


def _check_line(checked: Checked) -> tuple[str, ...]:
    cells = [f"{checked.preset}, {checked.rate:.0f}"]
    for share in (HALF, SHARE):
        simulated, measured = checked.simulated.percentile(share), checked.percentile(share)
        cells += [f"{1000 * simulated:.1f}", f"{1000 * measured:.1f}", f"{error(checked, share):+.0%}"]
    return (*cells, f"{checked.load:.1f}")


def sentences(rows: Sequence[Row]) -> Iterator[str]:
    """The settings to give each replica, and why there is no plan where there is none."""
    for row in rows:
        if row.planned is None:
            yield f"{row.why_not}."
            continue
        limits = row.planned.fleet.limits
        yield (
            f"{row.service.preset}: TRIGGERWALL_BATCH_ROWS={limits.batch_rows} "
            f"TRIGGERWALL_BATCH_DELAY_MS={1000 * limits.batch_delay:g} "
            f"TRIGGERWALL_QUEUE_ROWS={limits.queue_rows}"
        )


def disturbed(checked: Sequence[Checked], cores: int) -> str | None:
    """A sentence where the machine had so much else to do that the comparison says nothing."""
    load = max((each.load for each in checked), default=0.0)
    if load <= DISTURBED * cores:
        return None
    return f"Load {load:.0f} on {cores} cores: other work disturbed the check, repeat it on a quiet machine."


def to_json(rows: Sequence[Row], aim: Aim, checked: Sequence[Checked]) -> dict[str, Any]:
    """Everything above, for machines; times in seconds."""
    return {
        "aim": asdict(aim),
        "plans": [_row_json(row) for row in rows],
        "checked": [
            {
                "preset": each.preset, "rate": each.rate, "failed": each.failed, "load": each.load,
                "simulated": _percentiles(each.simulated.percentile),
                "measured": _percentiles(each.percentile),
            }
            for each in checked
        ],
    }  # fmt: skip


def _row_json(row: Row) -> dict[str, Any]:
    if row.planned is None:
        return {"preset": row.service.preset, "why_not": row.why_not}
    fleet, outcome = row.planned.fleet, row.planned.outcome
    return {
        "preset": row.service.preset, "replicas": fleet.replicas, **asdict(fleet.limits),
        **_percentiles(outcome.percentile), "refused": outcome.refused, "busy": outcome.busy,
        "batch_images": outcome.images,
    }  # fmt: skip


def _percentiles(percentile: Any) -> dict[str, float]:
    return {"p50": percentile(HALF), "p99": percentile(SHARE)}
