"""The contact sheet: images with their verdicts, for people who would rather look than read."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from PIL import Image, ImageDraw, ImageFont
from torch import Tensor

__all__ = ["Row", "contact_sheet"]

Row = tuple[str, Sequence[Tensor], Sequence[dict[str, Any]], Sequence[str]]
"""(heading, N images (1, H, W) uint8, their results, what each image really shows)."""

SIDE, GAP, CAPTION, HEADING = 84, 14, 34, 34
INK, PAPER, COLOURS = "#222222", "#ffffff", {"accepted": "#2e9e4f", "rejected": "#d33a2c"}


def contact_sheet(rows: Sequence[Row], path: Path) -> None:
    """Draw one line of tiles per row and save it as a PNG."""
    columns = max(len(results) for _, _, results, _ in rows)
    width = columns * (SIDE + GAP) + GAP
    height = len(rows) * (HEADING + SIDE + CAPTION + GAP) + GAP
    sheet = Image.new("RGB", (width, height), PAPER)
    pen = ImageDraw.Draw(sheet)
    for line, (heading, images, results, truths) in enumerate(rows):
        top = GAP + line * (HEADING + SIDE + CAPTION + GAP)
        pen.text((GAP, top), heading, INK, ImageFont.load_default(18))
        for column, (image, result, truth) in enumerate(zip(images, results, truths, strict=True)):
            _tile(sheet, pen, (GAP + column * (SIDE + GAP), top + HEADING), image, result, truth)
    path.parent.mkdir(parents=True, exist_ok=True)
    sheet.save(path)


def _tile(
    sheet: Image.Image,
    pen: ImageDraw.ImageDraw,
    corner: tuple[int, int],
    image: Tensor,
    result: dict[str, Any],
    truth: str,
) -> None:
    x, y = corner
    colour = COLOURS[result["verdict"]]
    pen.rectangle((x - 4, y - 4, x + SIDE + 3, y + SIDE + 3), fill=colour)
    tile = Image.fromarray(image[0].numpy()).resize((SIDE, SIDE), Image.Resampling.NEAREST)
    sheet.paste(tile.convert("RGB"), corner)
    prediction = result["prediction"]
    said = "withheld" if prediction is None else f"says {prediction['name']}"
    small = ImageFont.load_default(12)
    pen.text((x - 4, y + SIDE + 6), f"a {truth}: {said}", INK, small)
    pen.text((x - 4, y + SIDE + 20), result["verdict"], colour, small)
