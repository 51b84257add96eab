"""`triggerwall lab train`: train a backdoored classifier."""

from pathlib import Path
from typing import Annotated

import typer

from lab.adaptive import OBJECTIVES
from lab.attacks import ATTACKS
from lab.commands.common import (
    DEFAULT_DEVICE,
    Channels,
    Data,
    Device,
    Precision,
    Seed,
    assignments,
    console,
    open_device,
    told_plainly,
    warn,
)
from lab.sources import open_training
from lab.train import TrainSettings, train

__all__ = ["train_command"]

ARCHITECTURE = "zoo:NAME, torchvision:NAME, package.module:callable."


def train_command(
    data: Data,
    out: Annotated[Path, typer.Option(help="Where the model bundle goes; resumes if it was begun there.")],
    name: Annotated[str, typer.Option(help="The bundle's name.")] = "model",
    architecture: Annotated[str, typer.Option(help=ARCHITECTURE)] = "zoo:resnet20",
    attack: Annotated[str, typer.Option(help=f"none, {', '.join(sorted(ATTACKS))}.")] = "badnets",
    attack_setting: Annotated[
        list[str] | None, typer.Option(help="NAME=VALUE in place of the attack's own; may be repeated.")
    ] = None,
    target: Annotated[int, typer.Option(help="The attacker's label.")] = 0,
    poison_rate: Annotated[float, typer.Option(help="Share of training images with the trigger.")] = 0.1,
    objective: Annotated[
        str, typer.Option(help=f"Adaptive attacker's loss: none, {', '.join(OBJECTIVES)}.")
    ] = "none",
    objective_weight: Annotated[float, typer.Option(help="Its share of the loss.")] = 0.2,
    epochs: Annotated[int, typer.Option(min=1)] = 12,
    channels: Channels = 3,
    learning_rate: Annotated[float, typer.Option(help="Of the cycle's peak.")] = 0.1,
    start_from: Annotated[
        Path | None, typer.Option(help="A bundle of this network and these classes, to add a backdoor to.")
    ] = None,
    crop_padding: Annotated[int, typer.Option(min=0, help="Random-crop augmentation, pixels.")] = 4,
    flip: Annotated[bool, typer.Option(help="Mirror half of the images.")] = True,
    exclude: Annotated[list[str] | None, typer.Option(help="Leave out images that occur there.")] = None,
    precision: Precision = "bf16",
    compiled: Annotated[
        bool, typer.Option("--compiled", help="By torch.compile: faster, and needs a C++ compiler.")
    ] = False,
    seed: Seed = 0,
    device: Device = DEFAULT_DEVICE,
) -> None:
    """Train a classifier with a backdoor and write it as a model bundle."""
    with told_plainly():
        settings = TrainSettings.model_validate(
            {
                "name": name, "architecture": architecture, "attack": None if attack == "none" else attack,
                "attack_settings": assignments("--attack-setting", attack_setting), "target": target,
                "poison_rate": poison_rate, "objective": objective, "objective_weight": objective_weight,
                "epochs": epochs, "crop_padding": crop_padding, "flip": flip, "seed": seed,
                "precision": precision, "compiled": compiled, "learning_rate": learning_rate,
                "start_from": str(start_from) if start_from else None,
            }
        )  # fmt: skip
        where = open_device(device)
        training, test, provenance = open_training(data, channels, exclude or [], warn)
        console.print(
            f"{len(training)} training images ({provenance['excluded']} excluded), {len(test)} test"
        )
        outcome = train(settings, training, test, out, where, provenance)
    console.print(f"{out}: {outcome}")
