"""`triggerwall lab gallery`: draw what each attack does to images."""

from pathlib import Path
from typing import Annotated

import typer

from lab.attacks import ATTACKS
from lab.commands.common import Channels, Data, console, told_plainly, warn
from lab.data import LabError
from lab.gallery import draw_gallery, known_triggers
from lab.record import load_attack
from lab.sources import open_split

__all__ = ["gallery_command"]


def gallery_command(
    data: Data,
    out: Annotated[Path, typer.Option(help="The picture, .png or .jpg.")],
    attack: Annotated[list[str] | None, typer.Option(help="Only these; all by default.")] = None,
    bundle: Annotated[
        list[Path] | None, typer.Option(help="Also the trigger of this bundle, as it was learnt.")
    ] = None,
    target: Annotated[int, typer.Option(help="The attacker's label.")] = 0,
    columns: Annotated[int, typer.Option(min=1, help="Images per attack.")] = 3,
    factor: Annotated[float, typer.Option(min=0, help="How much the difference is enhanced.")] = 5,
    channels: Channels = 3,
) -> None:
    """Draw what each attack does to images: clean, triggered, difference."""
    with told_plainly():
        shown = known_triggers()
        for name in attack or []:
            if name not in shown:
                learnt = "it learns its trigger: give --bundle" if name in ATTACKS else "no such attack"
                raise LabError(f"{name} cannot be drawn ({learnt}); known: {', '.join(sorted(shown))}")
        shown = {name: shown[name] for name in (attack or ([] if bundle else shown))}
        shown |= {str(folder): load_attack(folder) for folder in bundle or []}
        drawn = draw_gallery(shown, open_split(data, "test", channels, warn), target, columns, factor)
        try:
            drawn.save(out)
        except ValueError as error:
            raise LabError(f"{out}: {error}") from error
    console.print(f"{out}: {', '.join(shown)}")
