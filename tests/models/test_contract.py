"""What a network expects and returns, each by hand."""

import pytest
import torch
from torch import Tensor, nn

from models.bundle import InputSpec, TorchSpec
from models.contract import count_classes, pixel_network, preparation
from models.errors import ArchitectureError


def spec(output: str = "logits", **given: object) -> TorchSpec:
    return TorchSpec.model_validate(
        {
            "name": "n",
            "architecture": "a:b",
            "weights": "w",
            "output": output,
            "input": {"size": (1, 2), **given},
        }
    )


def prepared(given: InputSpec) -> Tensor:
    """What a network gets of an image with a left pixel (0.2, 0.4, 0.6) and a right one (0, 1, 0)."""
    left, right = torch.tensor([0.2, 0.4, 0.6]), torch.tensor([0.0, 1.0, 0.0])
    out: Tensor = nn.Sequential(*preparation(given))(torch.stack([left, right], dim=1).view(1, 3, 1, 2))
    return out


def test_pixels_as_they_are() -> None:
    assert preparation(spec().input) == []


def test_normalised_then_scaled_then_reversed_then_laid_out() -> None:
    out = prepared(
        spec(mean=(0.1, 0.2, 0.3), std=(0.5, 1.0, 0.25), range=(0, 255), colours="bgr", layout="nhwc").input
    )
    # left: (0.1, 0.2, 0.3) / (0.5, 1, 0.25) = (0.2, 0.2, 1.2)
    # right: (-0.1, 0.8, -0.3) / (0.5, 1, 0.25) = (-0.2, 0.8, -1.2)
    expected = torch.tensor([[[[1.2, 0.2, 0.2], [-1.2, 0.8, -0.2]]]]) * 255
    assert out.shape == (1, 1, 2, 3)
    assert torch.allclose(out, expected)
    assert out.is_contiguous()


def test_range_alone() -> None:
    assert torch.allclose(
        prepared(spec(range=(0, 255)).input)[0, :, 0, 0], torch.tensor([51.0, 102.0, 153.0])
    )


class Fixed(nn.Module):
    def __init__(self, rows: list[list[float]]) -> None:
        super().__init__()
        self.rows = torch.tensor(rows)

    def forward(self, x: Tensor) -> Tensor:
        return self.rows[: len(x)]


def test_probabilities_become_logits_with_that_softmax() -> None:
    network = pixel_network(Fixed([[0.7, 0.2, 0.1], [1.0, 0.0, 0.0]]), spec("probabilities"))
    logits = network(torch.zeros(2, 3, 1, 2))
    assert logits.isfinite().all()
    assert torch.allclose(logits.softmax(1), torch.tensor([[0.7, 0.2, 0.1], [1.0, 0.0, 0.0]]))


@pytest.mark.parametrize(
    ("rows", "output", "sentence"),
    [
        ([[0.7, 0.2, 0.1], [0.2, 0.3, 0.5]], "logits", "returns probabilities: say `output: probabilities`"),
        ([[2.0, -1.0, 0.5], [1.0, 0.0, 3.0]], "probabilities", "does not return probabilities"),
        ([[0.2, 0.3, 0.1], [0.2, 0.3, 0.5]], "probabilities", "does not return probabilities"),
    ],
)
def test_what_is_said_of_the_output_is_checked(rows: list[list[float]], output: str, sentence: str) -> None:
    given = spec(output)
    with pytest.raises(ArchitectureError, match=sentence):
        count_classes(pixel_network(Fixed(rows), given), given, "net")


def test_logits_that_add_up_to_one_are_no_probabilities_where_one_is_negative() -> None:
    assert count_classes(Fixed([[2.0, -1.0], [0.5, 0.5]]), spec(), "net") == 2


def test_a_classifier_keeps_its_identity_when_fields_are_added() -> None:
    """Calibrations are bound to the digest: it must not change with a field that is at its default."""
    assert spec().identity() == {
        "backend": "torch",
        "architecture": "a:b",
        "architecture_args": {},
        "input": {"size": [1, 2], "channels": 3, "interpolation": "bilinear", "mean": None, "std": None},
    }
    for changed in (spec(range=(0, 255)), spec(layout="nhwc"), spec(colours="bgr"), spec("probabilities")):
        assert changed.identity() != spec().identity()
