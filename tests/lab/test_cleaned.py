import json
from pathlib import Path

import numpy as np
import pytest
import torch

from lab.cleaned import write_archive, write_indices
from lab.data import ImageSet, open_images


def numbered(count: int, channels: int) -> ImageSet:
    """Image i is i everywhere, of class i modulo 3."""
    images = torch.arange(count, dtype=torch.uint8).view(-1, 1, 1, 1).repeat(1, channels, 4, 5)
    return ImageSet(images, torch.arange(count) % 3, ("ant", "bee", "cat"))


def test_indices_by_hand(tmp_path: Path) -> None:
    write_indices(np.array([False, True, True, False, True]), tmp_path / "indices.json")
    found = json.loads((tmp_path / "indices.json").read_text(encoding="utf-8"))
    assert found == {"kept": [0, 3], "removed": [1, 2, 4]}


@pytest.mark.parametrize("channels", [1, 3])
def test_the_archive_gives_the_same_images_in_the_same_order(tmp_path: Path, channels: int) -> None:
    whole = numbered(14, channels)
    kept = whole.take(torch.tensor([0, 3, 5, 6, 12, 13]))  # of class bee the last alone
    write_archive(kept, whole, tmp_path / "cleaned.zip")
    training = open_images(str(tmp_path / "cleaned.zip"), "train", channels)
    test = open_images(str(tmp_path / "cleaned.zip"), "test", channels)
    assert torch.equal(training.images, kept.images)
    assert torch.equal(training.labels, kept.labels)
    assert training.classes == kept.classes
    assert torch.equal(test.images, whole.images)
    assert [file.name for file in tmp_path.iterdir()] == ["cleaned.zip"]


def test_a_class_of_which_nothing_is_left_keeps_its_place(tmp_path: Path) -> None:
    whole = numbered(6, 1)
    write_archive(whole.take(torch.tensor([1, 2, 4])), whole, tmp_path / "cleaned.zip")
    training = open_images(str(tmp_path / "cleaned.zip"), "train", 1)
    assert training.classes == ("ant", "bee", "cat")
    assert training.labels.tolist() == [1, 2, 1]
