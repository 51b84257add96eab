"""A network small enough to race in a test: three convolutions on 8×8 images."""

import pytest
import torch
from torch import Tensor, nn

from bench.recipes import Recipe, noise
from bench.subjects import Rule, Subject, make_subject

CPU = torch.device("cpu")
TINY = f"{__name__}:tiny"


class Tiny(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        layers: list[nn.Module] = []
        for inputs, outputs in ((3, 8), (8, 8), (8, 8)):
            layers += [
                nn.Conv2d(inputs, outputs, 3, padding=1, bias=False),
                nn.BatchNorm2d(outputs),
                nn.ReLU(),
            ]
        self.layers = nn.Sequential(*layers)
        self.head = nn.Linear(8, 4, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = self.head(self.layers(x).mean((2, 3)))
        return out


def tiny() -> nn.Module:
    return Tiny()


@pytest.fixture(scope="package")
def subject() -> Subject:
    """k = 2, n = 2 of three layers; every kind of traffic, and thresholds that some images exceed."""
    pools = {kind: noise(8, (3, 8, 8)) for kind in ("benign", "poisoned", "1 % poisoned")}
    made = make_subject(Recipe("tiny", TINY, (8, 8)), CPU, pools, k=2, n=2)
    made.rule = Rule(torch.full((4,), 0.6, dtype=torch.float64), [[1], [0]])
    return made
