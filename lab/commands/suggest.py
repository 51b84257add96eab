"""`triggerwall lab suggest`: how often the label suggested for a triggered image is the true one."""

from pathlib import Path
from typing import Annotated

import typer

from lab.commands.common import (
    DEFAULT_DEVICE,
    Channels,
    Data,
    Device,
    Out,
    Seed,
    console,
    open_device,
    told_plainly,
    warn,
    write_json,
)
from lab.data import LabError
from lab.pools import draw
from lab.record import load_attack, read_settings
from lab.sources import open_split
from lab.suggest import Suggested, judge_suggestions, suggestions_table
from models.loading import load_network

__all__ = ["suggest_command"]


def suggest_command(
    bundle: Annotated[list[Path], typer.Option(help="A model bundle of `lab train`; several may be named.")],
    data: Data,
    images: Annotated[int, typer.Option(min=1, help="Test images to draw from.")] = 1000,
    channels: Channels = 3,
    out: Out = None,
    seed: Seed = 0,
    device: Device = DEFAULT_DEVICE,
) -> None:
    """Measure how often the label that is suggested for a triggered image is the true one."""
    found: list[Suggested] = []
    with told_plainly():
        test = draw(open_split(data, "test", channels, warn), images, seed)
        for folder in bundle:
            settings, attack = read_settings(folder), load_attack(folder)
            victims = test.take(attack.victims(test.labels, settings.target))
            classifier = load_network(folder, open_device(device))
            triggered = attack.apply(victims.images)
            judged = judge_suggestions(classifier, attack.name, victims, triggered, settings.target)
            if judged is None:
                raise LabError(f"{folder}: no triggered image of {len(victims)} reaches the target")
            found.append(judged)
    console.print(suggestions_table(found))
    write_json(out, found)
