"""The moving parts of a training run, and the checkpoint from which a killed one goes on."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from pydantic import ValidationError
from torch import Tensor, nn
from torch.nn import functional as F

from lab.adaptive import Objective
from lab.batches import Batch, TrainingSet
from lab.data import LabError
from lab.settings import TrainSettings

__all__ = ["CHECKPOINT_FILE", "TrainingRun"]

CHECKPOINT_FILE = "checkpoint.pt"


class TrainingRun:
    """SGD with one learning-rate cycle over `data`, saved after every epoch: a kill loses at most one.

    Deterministic from the seed on one device, interrupted or not.
    """

    def __init__(
        self,
        network: nn.Module,
        settings: TrainSettings,
        data: TrainingSet,
        folder: Path,
        objective: Objective | None = None,
    ) -> None:
        self.network, self.settings, self.data, self.objective = network, settings, data, objective
        self.forward = torch.compile(network) if settings.compiled else network
        self.checkpoint = folder / CHECKPOINT_FILE
        self.epoch = 0
        self.fingerprint = data.data.fingerprint()
        self.steps_per_epoch = len(data.data) // settings.batch_size
        self.generator = torch.Generator().manual_seed(settings.seed)
        self.optimiser = torch.optim.SGD(
            network.parameters(), settings.learning_rate, momentum=0.9, nesterov=True,
            weight_decay=settings.weight_decay,
        )  # fmt: skip
        self.steps = self.steps_per_epoch * settings.epochs
        self.schedule = torch.optim.lr_scheduler.OneCycleLR(
            self.optimiser, settings.learning_rate, total_steps=self.steps, pct_start=0.25
        )

    def one_epoch(self, device: torch.device, advance: Callable[[], object]) -> None:
        """Train on every image once and save; calls `advance` after each step."""
        # Dropout draws from the global generator: reseeded, it does not notice an interruption.
        torch.manual_seed(self.settings.seed + self.epoch)
        self.network.train()
        for batch in self.data.epoch(self.settings, self.generator):
            with torch.autocast(device.type, torch.bfloat16, enabled=self.settings.precision == "bf16"):
                loss = self._loss(batch.to(device))
            self.optimiser.zero_grad(set_to_none=True)
            loss.backward()
            self.optimiser.step()
            self.schedule.step()
            advance()
        self.epoch += 1
        self._save()

    def _loss(self, batch: Batch) -> Tensor:
        plain = F.cross_entropy(self.forward(batch.images), batch.labels)
        if self.objective is None:
            return plain
        step = self.schedule.last_epoch
        # First learn the task and the backdoor, then hide it: what is not there yet cannot be hidden.
        weight = self.settings.objective_weight * min(1.0, 2 * step / self.steps)
        return (1 - weight) * plain + weight * self.objective(batch, step)

    def resume(self) -> None:
        """Go on from the folder's checkpoint, if there is one.

        Raises `LabError` where it is of other settings or other images, or unreadable.
        """
        if not self.checkpoint.exists():
            return
        try:
            state = torch.load(self.checkpoint, weights_only=True)
        except Exception as error:  # a damaged file surfaces as any of many types
            raise LabError(f"{self.checkpoint} cannot be read: remove it to start afresh") from error
        if _settings_of(state) != self.settings:
            raise LabError(f"{self.checkpoint} is of other settings: remove it or choose another folder")
        if state.get("data", self.fingerprint) != self.fingerprint:
            raise LabError(f"{self.checkpoint} is of other images: remove it or choose another folder")
        self.network.load_state_dict(state["network"])
        self.optimiser.load_state_dict(state["optimiser"])
        self.schedule.load_state_dict(state["schedule"])
        self.generator.set_state(state["generator"])
        self.epoch = state["epoch"]

    def _save(self) -> None:
        state: dict[str, Any] = {
            "settings": self.settings.model_dump_json(),
            "data": self.fingerprint,
            "epoch": self.epoch,
            "network": self.network.state_dict(),
            "optimiser": self.optimiser.state_dict(),
            "schedule": self.schedule.state_dict(),
            "generator": self.generator.get_state(),
        }
        partial = self.checkpoint.with_suffix(".partial")
        torch.save(state, partial)
        partial.replace(self.checkpoint)  # a kill leaves the old one or the new one, never half of one


def _settings_of(state: dict[str, Any]) -> TrainSettings | None:
    """Those of a checkpoint; settings that came later than it are at their defaults."""
    try:
        return TrainSettings.model_validate_json(state["settings"])
    except ValidationError:
        return None
