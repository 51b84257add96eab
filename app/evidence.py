"""What a calibration shows about the *model*: how far benign predictions collapse into one class.

Benign models collapse too, so every figure stands beside those of models whose training is known. These were
measured by `triggerwall lab evidence`, and lie in `collapse_reference.json` with the commands that made them.
"""

import json
from collections.abc import Sequence
from functools import cache
from pathlib import Path
from typing import Any

from models.base import ClassifierInfo

__all__ = ["model_evidence", "reference_models", "strongest"]

REFERENCE = Path(__file__).with_name("collapse_reference.json")
Figures = dict[str, Any]
SLIGHT = 0.05  # a share this little above that of the plain predictions is no collapse
ENOUGH = 19  # benign models, for the highest of them and one more to be remarkable at 5 %


@cache
def reference_models() -> tuple[Figures, ...]:
    """The measured models: `model`, `images`, `channels`, `backdoored`, `training`, `collapse`, ..."""
    return tuple(json.loads(REFERENCE.read_text(encoding="utf-8"))["models"])


def model_evidence(
    detectors: Sequence[Figures], info: ClassifierInfo, models: Sequence[Figures] | None = None
) -> list[Figures]:
    """One entry per perturbation, from the reports of the detectors that measured it; JSON.

    Amplification is taken at the deepest of the networks that IBD-PSC uses. Only reference models with as
    many image channels are compared with: grey digits and colour photographs collapse differently.
    """
    known = reference_models() if models is None else models
    alike = [m for m in known if m["channels"] == info.channels and m["digest"] != info.digest]
    found: dict[tuple[str, float], Figures] = {}
    for each in _collapses(detectors):
        found.setdefault((each["by"], each["strength"]), each)
    return [_entry(each, alike, info) for each in found.values()]


def strongest(evidence: Sequence[Figures]) -> list[Figures]:
    """Of each kind of perturbation the strongest: what is worth a sentence."""
    last = {each["by"]: each for each in sorted(evidence, key=lambda each: float(each["strength"]))}
    return [last[by] for by in ("amplification", "scaling") if by in last]


def _collapses(detectors: Sequence[Figures]) -> list[Figures]:
    found: list[Figures] = []
    for each in detectors:
        measured = (each["behaviour"] or {}).get("collapse", [])
        used = int(each["fit"]["k"]) + int(each["fit"]["n"]) - 1 if "k" in each["fit"] else None
        found += [c for c in measured if c["by"] != "amplification" or c["strength"] == used]
    return found


def _entry(each: Figures, models: Sequence[Figures], info: ClassifierInfo) -> Figures:
    shares: dict[bool | None, list[float]] = {False: [], True: [], None: []}
    for model in models:
        shares[model["backdoored"]] += [c["share"] for c in model["collapse"] if _same(c, each)]
    entry = {**each, "name": info.name_of(each["label"]), "benign_models": shares[False]}
    return {**entry, "backdoored_models": shares[True], "sentence": _sentence(entry)}


def _same(reference: Figures, each: Figures) -> bool:
    """Depths differ from network to network: amplification is compared at what IBD-PSC uses of each."""
    if reference["by"] != each["by"]:
        return False
    return each["by"] == "amplification" or bool(reference["strength"] == each["strength"])


def _sentence(entry: Figures) -> str:
    by = "amplification" if entry["by"] == "amplification" else f"pixel scaling ×{entry['strength']:g}"
    label, name = str(entry["label"]), entry["name"]
    named = f"{label} ({name})" if name and name != label else label
    return (
        f"benign images collapse into class {named} under {by}: {entry['share']:.2f}, where "
        f"{entry['plain_share']:.2f} are predicted so anyway; {_comparison(entry)}"
    )


def _comparison(entry: Figures) -> str:
    """What benign models show. Of n + 1 alike, each is the highest with probability 1/(n + 1): fewer than
    `ENOUGH` others cannot make the highest remarkable."""
    shares, share = entry["benign_models"], entry["share"]
    if share - entry["plain_share"] < SLIGHT:
        return "that is hardly a collapse"
    if not shares:
        return "no benign model of this kind was measured to compare with"
    count = f"{len(shares)} benign model{'s' if len(shares) > 1 else ''}"
    span = f"{min(shares):.2f}–{max(shares):.2f}" if len(shares) > 1 else f"{shares[0]:.2f}"
    if share <= max(shares):
        return f"{count} measured show as much ({span}), so this is no sign of a backdoor"
    said = f"{count} measured show less ({span})"
    if len(shares) < ENOUGH:
        return f"{said}, but that happens to one benign model in {len(shares) + 1}: measure more of them"
    return f"{said}: look closer at where this model comes from"
