"""Breadth: torchvision's families and the whole zoo, each against amplified deep copies."""

from typing import Any

import pytest
import torch
import torchvision
from torch import nn

from detectors.amplification import Copies, batch_norm_order
from detectors.fork import Fork
from models.contract import Normalise
from models.zoo import ZOO
from tests.detectors.networks import distance, lively, one_thread  # noqa: F401  (a fixture)

# Side of the image: small, and still more than one pixel at the last forks of most.
TORCHVISION = {
    "resnet18": 40,
    "resnet50": 40,
    "vgg16_bn": 32,
    "mobilenet_v2": 40,
    "mobilenet_v3_small": 40,
    "densenet121": 40,
    "efficientnet_b0": 40,
    "regnet_y_400mf": 40,
    "shufflenet_v2_x1_0": 40,
    "googlenet": 40,
    "inception_v3": 75,
}
SMALL_ZOO = [name for name in ZOO if name != "badnets_cnn"]  # it has no BatchNorm


def build_named(name: str) -> tuple[nn.Module, int]:
    source, _, short = name.rpartition(":")
    if source == "zoo":
        return ZOO[short](), 32
    arguments: dict[str, Any] = {}
    if short in ("vgg16_bn", "googlenet", "inception_v3"):
        arguments["init_weights"] = False
    if short in ("googlenet", "inception_v3"):
        arguments |= {"aux_logits": True, "transform_input": True}
    network = torchvision.models.get_model(short, num_classes=10, **arguments)
    if short == "vgg16_bn":
        network.classifier = nn.Linear(512 * 7 * 7, 10)  # the original three hold 480 MB
    return network, TORCHVISION[short]


@pytest.mark.parametrize("name", [*(f"zoo:{name}" for name in SMALL_ZOO), *TORCHVISION])
def test_equals_copies(name: str) -> None:
    """In float64, so that a deep network's rounding cannot hide a difference; answers are float32."""
    torch.manual_seed(0)
    network, side = build_named(name)
    network = nn.Sequential(Normalise((0.5, 0.4, 0.5), (0.25, 0.2, 0.3)), network).double()
    x = torch.rand(3, 3, side, side, dtype=torch.float64)
    lively(network, torch.cat([x, torch.rand(3, 3, side, side, dtype=torch.float64)]))
    order = batch_norm_order(network, x)
    middle = len(order) // 2
    counts, which, rows = [middle + 1, 2, middle], [2, 0, 1], torch.tensor([2, 0])
    fork, copies = Fork(network, 1.2, counts, order, x), Copies(network, 1.2, counts, order)
    (logits, forks), (expected, originals) = fork.base(x), copies.base(x)
    assert distance(logits, expected) < 1e-6
    wanted = copies.variants(originals, which)
    for found, variant in zip(fork.variants(forks, which), wanted, strict=True):
        assert distance(found, variant) < 1e-6
    for found, variant in zip(fork.variants(forks, which, rows), wanted, strict=True):
        assert distance(found, variant[rows]) < 1e-6
