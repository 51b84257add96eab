"""One image in quarantine: its facts, its scores, and how it answers the detectors' questions."""

import asyncio
from typing import Any

import torch
from markupsafe import Markup

from app.console.classes import class_name
from app.console.plots import odds_plot
from app.console.probing import Answers, Question, ask, questions
from app.explanation import suggestion_for
from app.firewall import Suggested
from app.gateway import Gateway
from app.images import Pixels
from app.seen import Seen, pixels_of
from detectors.base import DetectorError
from models.errors import ModelError

__all__ = ["changed", "image_page"]

PATIENCE_S = 5.0  # for the classifier's answers: the device may be busy with traffic


async def image_page(gateway: Gateway, sha256: str) -> dict[str, Any]:
    """Raises `UnknownImage`, `StoreError`."""
    held = await asyncio.to_thread(gateway.quarantine.get, sha256)
    decision = await asyncio.to_thread(gateway.decisions.get, held.decision_id)
    seen = await asyncio.to_thread(pixels_of, gateway, sha256)
    answers, silent = await _answers(gateway, seen)
    return {
        "held": held,
        "name": class_name(gateway.info, held.label),
        "decision": decision,
        "reviews": await asyncio.to_thread(gateway.quarantine.reviews, sha256),
        "file_problem": seen.problem,
        "answers": answers,
        "silent": silent,
        "suggested": await _suggested(gateway, seen, held.label),
        "plots": _plots(gateway, answers) if answers else {},
        "class_name": lambda label: class_name(gateway.info, label),
        "calibration_known": decision.calibration_id == getattr(gateway.calibrator.active, "id", None),
    }


def _plots(gateway: Gateway, answers: Answers) -> dict[str, Markup]:
    """By detector, where it is known what is usual. Labels alone have no log-odds."""
    if gateway.info.access == "labels":
        return {}
    known = {name: found for name, found in answers.by.items() if any(each.usual for each in found)}
    return {name: odds_plot(found, answers.plain) for name, found in known.items()}


async def _answers(gateway: Gateway, seen: Seen) -> tuple[Answers | None, str | None]:
    """What the classifier answers, or the sentence that says why it does not."""
    if seen.pixels is None or not questions(gateway.firewall.detectors):
        return None, None
    try:
        asked = gateway.worker.run(ask, gateway.firewall, seen.pixels)
        return await asyncio.wait_for(asked, PATIENCE_S), None
    except TimeoutError:
        return None, "the device is busy with traffic: reload the page for the answers to probes"
    except (DetectorError, ModelError) as error:
        return None, f"the classifier did not answer the probes: {error}"


async def _suggested(gateway: Gateway, seen: Seen, label: int) -> Suggested | None:
    """None where the classifier cannot say now."""
    if seen.pixels is None:
        return None
    try:
        return await suggestion_for(gateway.worker, gateway.firewall, seen.pixels, label)
    except (TimeoutError, DetectorError, ModelError):
        return None


def changed(gateway: Gateway, pixels: Pixels, name: str) -> Pixels | None:
    """`pixels` under the question called `name`; None where no detector asks it. Blocking."""
    question: Question | None = next(
        (each for each in questions(gateway.firewall.detectors) if each.name == name), None
    )
    return None if question is None else question.apply(torch.from_numpy(pixels)[None])[0].numpy()
