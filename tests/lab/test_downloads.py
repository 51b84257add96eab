"""No test downloads anything: what torchvision returns is a sequence of (PIL image, label)."""

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from torchvision import datasets

from lab.data import LabError, open_images
from lab.downloads import CACHE, DOWNLOADS


def pictures(count: int, side: int, first: int) -> list[tuple[Image.Image, int]]:
    return [
        (Image.fromarray(np.full((side, side, 3), (first + i, 0, 255), dtype=np.uint8)), i % 10)
        for i in range(count)
    ]


@pytest.fixture
def calls(monkeypatch: pytest.MonkeyPatch) -> list[tuple[str, dict[str, Any]]]:
    """torchvision's classes replaced by ones that note how they were called."""
    seen: list[tuple[str, dict[str, Any]]] = []

    def fake(name: str, side: int) -> Any:
        def build(root: str, **options: Any) -> list[tuple[Image.Image, int]]:
            seen.append((name, {"root": root, **options}))
            train = options.get("train", options.get("split") == "train")
            return pictures(20, side, 10) if train else pictures(5, side, 90)

        return build

    for name, side in (("CIFAR10", 32), ("MNIST", 28), ("GTSRB", 47)):
        monkeypatch.setattr(datasets, name, fake(name, side))
    return seen


@pytest.mark.parametrize(
    ("source", "side", "classes", "options"),
    [
        ("cifar10", 32, 10, {"train": True}),
        ("mnist", 28, 10, {"train": True}),
        ("gtsrb", 32, 43, {"split": "train"}),
    ],
)
def test_training_split(
    source: str, side: int, classes: int, options: dict[str, Any], calls: list[tuple[str, dict[str, Any]]]
) -> None:
    data = open_images(f"torchvision:{source}", "train")
    assert data.images.shape == (20, 3, side, side)
    assert data.images.dtype == torch.uint8
    assert data.images[3, :, 5, 5].tolist() == [13, 0, 255]
    assert data.labels.tolist() == [i % 10 for i in range(20)]
    assert len(data.classes) == classes
    assert calls == [(source.upper(), {"root": str(CACHE), "download": True, **options})]


def test_test_split_and_both_and_grey(calls: list[tuple[str, dict[str, Any]]]) -> None:
    test = open_images("torchvision:cifar10", "test", channels=1)
    assert test.images.shape == (5, 1, 32, 32)
    assert test.images[0, 0, 0, 0] == round(0.299 * 90 + 0.114 * 255)
    both = open_images("torchvision:cifar10")
    assert both.images[:, 0, 0, 0].tolist() == [*range(10, 30), *range(90, 95)]
    assert both.classes[0] == "airplane"
    assert len(calls) == 3


def test_what_cannot_be_had(monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(LabError, match="torchvision:stl is not known; known: cifar10, gtsrb, mnist"):
        open_images("torchvision:stl")

    def offline(_train: bool) -> Any:
        raise RuntimeError("no route to host")

    monkeypatch.setitem(DOWNLOADS, "cifar10", replace(DOWNLOADS["cifar10"], open=offline))  # type: ignore[arg-type]
    with pytest.raises(LabError, match=r"cannot be downloaded .* no route to host; a folder or zip"):
        open_images("torchvision:cifar10", "train")
