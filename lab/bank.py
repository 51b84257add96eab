"""What one model answers under every probe there is, measured once: the material for choosing probes.

Choosing means judging hundreds of ladders; with the answers at hand each takes a fraction of a second.
"""

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from rich.console import Console
from rich.progress import track
from torch import Tensor

from detectors.base import BasePass, Floats, Integers
from detectors.calibration import BenignSample
from detectors.copies import logits_of_copies
from detectors.probes import PROBES
from detectors.profile import log_odds
from lab.data import LabError
from lab.judge import Study
from lab.shifts import SHIFTS

__all__ = ["Answers", "Bank", "measure_bank", "read_bank", "write_bank"]

BATCH = 125


@dataclass(frozen=True)
class Answers:
    """Of N images: `predicted` (N,); `odds` (N, 1 + probes), the log-odds of that label for the image itself
    and under each probe; `kept` (N, probes), 1 where a probe leaves the label alone, else 0."""

    predicted: Integers
    odds: Floats
    kept: Floats

    def __len__(self) -> int:
        return len(self.predicted)

    def first(self, count: int) -> "Answers":
        return Answers(self.predicted[:count], self.odds[:count], self.kept[:count])

    def sample(self, columns: list[int], *, by_label: bool, name: str) -> BenignSample:
        """The evidence that the detector `name` over the probes `columns` would have measured."""
        evidence = self.kept[:, columns] if by_label else self.odds[:, [0, *(1 + each for each in columns)]]
        return BenignSample(self.predicted, None, {name: evidence})


@dataclass(frozen=True)
class Bank:
    """One model under every probe of `names`. `calibration` and `benign` images do not overlap; `shifted` are
    the benign ones under harmless changes of the world. Without a backdoor nothing is poisoned."""

    model: str
    attack: str | None
    target: int
    classes: int
    names: tuple[str, ...]
    calibration: Answers
    benign: Answers
    poisoned: Answers | None
    shifted: dict[str, Answers]

    @property
    def success(self) -> float:
        """Share of the poisoned images that get the target label."""
        return 0.0 if self.poisoned is None else float((self.poisoned.predicted == self.target).mean())

    def columns(self, names: list[str]) -> list[int]:
        return [self.names.index(name) for name in names]


def measure_bank(study: Study, model: str, shifts: bool = True) -> Bank:
    """Ask `study`'s classifier every probe about all of the study's images."""

    def ask(images: Tensor, title: str) -> Answers:
        return _answers(study, images, f"{model}: {title}")

    return Bank(
        model,
        study.attack,
        study.target,
        study.classifier.num_classes,
        tuple(PROBES),
        ask(study.calibration.images, "calibration"),
        ask(study.benign, "benign"),
        ask(study.poisoned, "poisoned") if study.attack else None,
        {name: ask(change(study.benign), name) for name, change in SHIFTS.items()} if shifts else {},
    )


@torch.inference_mode()
def _answers(study: Study, images: Tensor, title: str) -> Answers:
    changes = [probe.apply for probe in PROBES.values()]
    parts = list(images.split(BATCH))
    predicted, odds, kept = [], [], []
    for part in track(parts, title, console=Console(stderr=True), transient=True):
        pixels = part.to(study.classifier.device).float() / 255
        base = BasePass.of(pixels, study.classifier.logits(pixels))
        logits = logits_of_copies(study.classifier, pixels, changes)
        under = log_odds(logits.flatten(0, 1), base.labels.repeat(len(changes))).view(len(changes), -1)
        odds.append(torch.cat([log_odds(base.logits, base.labels)[None], under]).T.cpu())
        kept.append((logits.argmax(2) == base.labels).T.cpu())
        predicted.append(base.labels.cpu())
    return Answers(
        torch.cat(predicted).numpy(), torch.cat(odds).double().numpy(), torch.cat(kept).double().numpy()
    )


def write_bank(path: Path, bank: Bank) -> None:
    """An .npz without pickles, whole or not at all."""
    about = [bank.model, bank.attack or "", str(bank.target), str(bank.classes)]
    arrays: dict[str, np.ndarray] = {"about": np.array(about), "names": np.array(bank.names)}
    kinds = {"calibration": bank.calibration, "benign": bank.benign, **_prefixed(bank.shifted)}
    if bank.poisoned is not None:
        kinds["poisoned"] = bank.poisoned
    for kind, each in kinds.items():
        arrays[f"{kind}/predicted"] = each.predicted.astype(np.int32)
        arrays[f"{kind}/odds"] = each.odds.astype(np.float32)
        arrays[f"{kind}/kept"] = each.kept.astype(bool)
    partial = path.with_name(f"{path.name}.partial")
    with partial.open("wb") as file:
        np.savez_compressed(file, **arrays)  # type: ignore[arg-type]
    partial.replace(path)


def _prefixed(shifted: dict[str, Answers]) -> dict[str, Answers]:
    return {f"shifted {name}": each for name, each in shifted.items()}


def read_bank(path: Path) -> Bank:
    """Raises `LabError` for what `write_bank` has not written, or has written of other probes."""
    try:
        with np.load(path, allow_pickle=False) as found:
            names = tuple(found["names"].tolist())
            kinds = [key.removesuffix("/odds") for key in found.files if key.endswith("/odds")]
            answers = {
                kind: Answers(
                    found[f"{kind}/predicted"].astype(np.int64),
                    found[f"{kind}/odds"].astype(np.float64),
                    found[f"{kind}/kept"].astype(np.float64),
                )
                for kind in kinds
            }
            model, attack, target, classes = found["about"].tolist()
    except (OSError, ValueError, KeyError) as error:
        raise LabError(f"{path} is no bank of probe answers: {error}") from error
    if names != tuple(PROBES):
        raise LabError(f"{path} was measured with other probes: remove it, and it is measured again")
    shifted = {k.removeprefix("shifted "): v for k, v in answers.items() if k.startswith("shifted ")}
    return Bank(
        model, attack or None, int(target), int(classes), names,
        answers["calibration"], answers["benign"], answers.get("poisoned"), shifted,
    )  # fmt: skip
