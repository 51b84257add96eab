"""What triggers look like: clean, triggered, and the difference made visible, side by side."""

from collections.abc import Mapping

import torch
from PIL import Image, ImageDraw
from torch import Tensor

from lab.attacks import ATTACKS, Attack
from lab.data import ImageSet, LabError

__all__ = ["draw_gallery", "known_triggers", "strips"]

GAP = 6  # pixels of the finished picture
CAPTION = 16
LEAST_SIDE = 96  # small images are enlarged to about this
WHITE = 255


def known_triggers() -> dict[str, Attack]:
    """The attacks whose trigger does not have to be learnt first, by name."""
    return {name: kind() for name, kind in ATTACKS.items() if kind.prepared is Attack.prepared}


def strips(attack: Attack, clean: Tensor, factor: float) -> Tensor:
    """Clean images (N, C, H, W) uint8, the same triggered, and |difference| × `factor`: (N, 3, C, H, W)."""
    triggered = attack.apply(clean)
    difference = (triggered.int() - clean.int()).abs() * factor
    return torch.stack([clean, triggered, difference.round().clamp(0, 255).to(torch.uint8)], dim=1)


def draw_gallery(
    attacks: Mapping[str, Attack], data: ImageSet, target: int, columns: int, factor: float
) -> Image.Image:
    """A row per attack, `columns` victims in each, evenly drawn. Raises `LabError` where that cannot be."""
    if not 0 <= target < len(data.classes):
        raise LabError(f"target label {target} is not one of 0..{len(data.classes) - 1}")
    rows = []
    for caption, attack in attacks.items():
        victims = data.images[attack.victims(data.labels, target)]
        if len(victims) < columns:
            raise LabError(f"{caption}: the data has {len(victims)} images to attack, not {columns}")
        spread = torch.linspace(0, len(victims) - 1, columns).long()  # files come class by class
        try:
            rows.append((caption, strips(attack, victims[spread], factor)))
        except ValueError as error:
            raise LabError(f"{caption}: {error}") from error
    return _sheet(rows, factor)


def _sheet(rows: list[tuple[str, Tensor]], factor: float) -> Image.Image:
    columns, shown, _, height, width = rows[0][1].shape
    zoom = max(1, round(LEAST_SIDE / height))
    cell_height, cell_width = height * zoom + GAP, width * zoom + GAP
    size = (columns * (shown * cell_width + GAP), len(rows) * (cell_height + CAPTION) + GAP)
    sheet = Image.new("RGB", size, (WHITE, WHITE, WHITE))
    pen = ImageDraw.Draw(sheet)
    for number, (caption, cells) in enumerate(rows):
        top = number * (cell_height + CAPTION)
        pen.text((GAP, top + 2), f"{caption}: clean, triggered, difference x {factor:g}", fill=(0, 0, 0))
        for column in range(columns):
            for place in range(shown):
                left = GAP + column * (shown * cell_width + GAP) + place * cell_width
                sheet.paste(_picture(cells[column, place], zoom), (left, top + CAPTION))
    return sheet


def _picture(image: Tensor, zoom: int) -> Image.Image:
    """(1 or 3, H, W) uint8, each pixel enlarged to `zoom`×`zoom`."""
    pixels = image.expand(3, -1, -1).permute(1, 2, 0).contiguous().numpy()
    height, width = pixels.shape[:2]
    return Image.fromarray(pixels).resize((width * zoom, height * zoom), Image.Resampling.NEAREST)
