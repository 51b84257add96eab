"""Options of the commands that measure many images once and draw from them."""

from pathlib import Path
from typing import Annotated

import typer

__all__ = ["Kept", "Pool", "Whole", "kept_in"]

Pool = Annotated[int, typer.Option(min=40, help="Benign images measured, at most.")]
Whole = Annotated[
    bool,
    typer.Option("--whole", help="All of the source, for models that were trained on none of it."),
]
Kept = Annotated[
    Path | None, typer.Option(help="Folder that keeps what was measured and gives it back the next time.")
]


def kept_in(folder: Path | None, kind: str) -> Path | None:
    """The file in `folder` for images of one `kind`; makes the folder."""
    if folder is None:
        return None
    folder.mkdir(parents=True, exist_ok=True)
    return folder / f"{kind}.npz"
