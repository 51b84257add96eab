"""What `lab.judging` writes about a bundle besides its evaluation, as it is read again."""

from collections.abc import Sequence
from pathlib import Path

from pydantic import BaseModel, ConfigDict, FiniteFloat, TypeAdapter, model_validator

from lab.data import LabError
from lab.judging import ABLATION_FILE, BEHAVIOUR_FILE, TRIGGERS_FILE

__all__ = [
    "Ablated",
    "Behaviour",
    "Contrast",
    "Curve",
    "Plane",
    "groups",
    "read_ablation",
    "read_behaviour",
    "read_triggers",
]

PNG = b"\x89PNG\r\n\x1a\n"
Point = tuple[FiniteFloat, FiniteFloat]


class Strict(BaseModel):
    model_config = ConfigDict(frozen=True)


class Curve(Strict):
    """`lab.behaviour.Curve`."""

    at: list[int]
    mean: list[FiniteFloat]
    low: list[FiniteFloat]
    high: list[FiniteFloat]

    @model_validator(mode="after")
    def _as_long(self) -> "Curve":
        if not self.at or {len(self.at)} != {len(self.mean), len(self.low), len(self.high)}:
            raise ValueError("a curve whose parts differ in length")
        return self


class Contrast(Strict):
    """Of benign images and, where there is a backdoor, of poisoned ones."""

    benign: Curve
    poisoned: Curve | None = None


class Plane(Strict):
    """`lab.behaviour.Features`."""

    explained: FiniteFloat
    benign: list[Point]
    benign_labels: list[int]
    poisoned: list[Point]


class Behaviour(Strict):
    """`lab.behaviour.behaviour_of`."""

    images: int
    amplification: Contrast | None = None
    scaling: Contrast | None = None
    features: Plane | None = None


class Ablated(Strict):
    """`lab.ablation.Ablated`."""

    parameter: str
    detector: str
    value: str
    usual: bool
    auroc: FiniteFloat | None = None
    target_auroc: FiniteFloat | None = None
    tpr: FiniteFloat | None = None
    fpr: FiniteFloat | None = None
    tpr_fixed: FiniteFloat | None = None
    fpr_fixed: FiniteFloat | None = None


BEHAVIOUR = TypeAdapter(Behaviour)
ABLATION = TypeAdapter(tuple[Ablated, ...])


def read_behaviour(folder: Path) -> Behaviour | None:
    """None where there is none; raises `LabError` where it cannot be read."""
    path = folder / BEHAVIOUR_FILE
    if not path.exists():
        return None
    try:
        return BEHAVIOUR.validate_json(path.read_bytes())
    except (OSError, ValueError) as error:
        raise LabError(f"its {BEHAVIOUR_FILE} cannot be read") from error


def read_ablation(folder: Path) -> tuple[Ablated, ...]:
    """Empty where there is none; raises `LabError` where it cannot be read."""
    path = folder / ABLATION_FILE
    if not path.exists():
        return ()
    try:
        return ABLATION.validate_json(path.read_bytes())
    except (OSError, ValueError) as error:
        raise LabError(f"its {ABLATION_FILE} cannot be read") from error


def read_triggers(folder: Path) -> bytes | None:
    """The trigger gallery, a PNG; None where there is none. Raises `LabError` for something else."""
    path = folder / TRIGGERS_FILE
    if not path.exists():
        return None
    content = path.read_bytes()
    if not content.startswith(PNG):
        raise LabError(f"its {TRIGGERS_FILE} cannot be read")
    return content


def groups(rows: Sequence[Ablated]) -> list[list[Ablated]]:
    """By detector and parameter, in the order they came."""
    found: dict[tuple[str, str], list[Ablated]] = {}
    for row in rows:
        found.setdefault((row.detector, row.parameter), []).append(row)
    return list(found.values())
