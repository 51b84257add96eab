"""The demo does its job, and no image has two roles in it."""

import json
import subprocess
import sys
from pathlib import Path

import pytest
from PIL import Image

from lab.attacks import ATTACKS
from lab.data import open_images
from lab.demo.images import as_png, as_zip, demo_images
from lab.demo.sheet import contact_sheet
from lab.demo.tables import share

BUNDLE = Path(__file__).parents[3] / "models" / "demo"


def test_calibration_benign_and_triggered_images_are_disjoint() -> None:
    images = demo_images(BUNDLE, 300, 200, 100)
    sets = [set(s.digests()) for s in (images.calibration, images.benign, images.clean_sources)]
    assert [len(each) for each in sets] == [300, 200, 100]
    assert len(set.union(*sets)) == 600
    assert (images.triggered.labels != images.target).all()
    settings = json.loads((BUNDLE / "training.json").read_text())["settings"]
    stamped = ATTACKS[settings["attack"]]().apply(images.clean_sources.images)
    assert (stamped == images.triggered.images).all()
    assert (stamped != images.clean_sources.images).flatten(1).any(1).all()


def test_png_and_zip_keep_every_pixel(tmp_path: Path) -> None:
    images = demo_images(BUNDLE, 20, 10, 10)
    path = tmp_path / "digits.zip"
    path.write_bytes(as_zip(images.calibration))
    again = open_images(str(path), None, channels=1)
    assert sorted(again.digests()) == sorted(images.calibration.digests())
    (tmp_path / "one.png").write_bytes(as_png(images.benign.images[0]))
    with Image.open(tmp_path / "one.png") as image:
        assert image.mode == "L"
        assert image.tobytes() == images.benign.images[0].numpy().tobytes()


def test_the_contact_sheet_frames_verdicts_in_their_colours(tmp_path: Path) -> None:
    images = demo_images(BUNDLE, 10, 2, 10)
    accepted = {"verdict": "accepted", "prediction": {"name": "3"}}
    rejected = {"verdict": "rejected", "prediction": None}
    path = tmp_path / "deep" / "sheet.png"
    contact_sheet([("two", list(images.benign.images), [accepted, rejected], ["3", "5"])], path)
    with Image.open(path) as sheet:
        assert sheet.getpixel((11, 47)) == (46, 158, 79)
        assert sheet.getpixel((11 + 98, 47)) == (211, 58, 44)


def test_share() -> None:
    assert share([{"verdict": "accepted"}, {"verdict": "rejected"}], "rejected") == 0.5


@pytest.mark.timeout(300)
def test_the_demo_stops_triggered_images_and_passes_benign_ones(tmp_path: Path) -> None:
    command = [
        str(Path(sys.executable).with_name("triggerwall")),
        "demo",
        "--sheet",
        str(tmp_path / "demo.png"),
    ]
    result = subprocess.run(command, cwd=BUNDLE.parents[1], capture_output=True, text=True, timeout=280)
    assert result.returncode == 0, result.stdout + result.stderr
    assert "SPC" in result.stdout
    assert "none:" in result.stdout
    assert (tmp_path / "demo.png").stat().st_size > 5000
