"""Overwriting changes no bit of any result, and touches nothing that anybody else still reads."""

from typing import Any

import pytest
import torch
from torch import Tensor, nn

from detectors import packing, segments
from detectors.amplification import batch_norm_order
from detectors.fork import Fork
from detectors.in_place import aten
from detectors.packing import pack_network
from models.zoo import resnet20
from tests.detectors.networks import lively, one_thread  # noqa: F401  (a fixture)
from tests.detectors.test_fork_networks import SMALL_ZOO, build_named

# ReLU, ReLU6, SiLU and hard-swish; residuals, concatenation, squeeze-excite.
SHOWN = ["resnet18", "mobilenet_v2", "mobilenet_v3_small", "efficientnet_b0", "densenet121"]
IN_PLACE = {aten.relu_.default, aten.hardtanh_.default, aten.silu_.default, aten.hardswish_.default}


def pure(monkeypatch: pytest.MonkeyPatch) -> None:
    """From here on nothing is overwritten."""
    for user in (segments, packing):
        monkeypatch.setattr(user, "overwrite", lambda *_, **__: None)


def overwriting(engine: Fork, targets: set[Any]) -> int:
    graphs: list[Any] = [segment.graph for segment in engine._segments]
    return sum(node.target in targets for graph in graphs for node in graph.nodes)


@pytest.mark.parametrize("name", [*(f"zoo:{name}" for name in SMALL_ZOO), *SHOWN])
def test_no_bit_changes(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    torch.manual_seed(0)
    network, side = build_named(name)
    images = torch.rand(3, 3, side, side)
    lively(network, images)
    order = batch_norm_order(network, images)
    counts = sorted({1, 2, len(order) // 2, len(order)} - {0})
    engine = Fork(network, 1.5, counts, order, images)
    pure(monkeypatch)
    expected = Fork(network, 1.5, counts, order, images)
    assert overwriting(expected, {*IN_PLACE, aten.add_.Tensor}) == 0
    every = range(len(counts))
    for batch, first in ((images, ()), (images[:1], every)):
        before = batch.clone()
        logits, forks = engine.base(batch, first)
        saved = [[value.clone() for value in point] for point in forks.points]
        variants = engine.variants(forks, every)
        assert torch.equal(engine.variants(forks, every), variants), "a second look finds the same"
        assert all(torch.equal(a, b) for p, q in zip(forks.points, saved, strict=True)
                   for a, b in zip(p, q, strict=True))  # fmt: skip
        assert torch.equal(batch, before)
        plain, others = expected.base(batch, first)
        assert torch.equal(logits, plain)
        assert torch.equal(variants, expected.variants(others, every))


def test_a_residual_network_overwrites_all_it_can() -> None:
    """ResNet-20: 19 ReLUs each read a BatchNorm or a sum; 9 sums each read a fresh BatchNorm."""
    torch.manual_seed(0)
    images = torch.rand(2, 3, 32, 32)
    network = resnet20().eval()
    order = batch_norm_order(network, images)
    engine = Fork(network, 1.5, [1], order, images)
    # The fork is at the last layer, so both terms of the sum after it are saved ones.
    assert overwriting(engine, {aten.add_.Tensor}) == 8
    assert overwriting(engine, {aten.relu_.default}) == 19
    assert overwriting(engine, {aten.add.Tensor}) == 1
    reduced = Fork(network, 1.5, [1], order, images, dtype=torch.bfloat16)
    assert overwriting(reduced, {aten.add_.Tensor}) == 0, "under autocast its terms may differ in dtype"
    assert overwriting(reduced, {aten.relu_.default}) == 19


def test_packed_networks_overwrite_too(monkeypatch: pytest.MonkeyPatch) -> None:
    torch.manual_seed(0)
    images = torch.rand(4, 3, 32, 32)
    network = lively(resnet20(), images)
    packed = pack_network(network, images)
    targets = [node.target for node in packed.run.graph.nodes]
    assert targets.count(aten.relu_.default) == 19
    assert targets.count(aten.add_.Tensor) == 9
    found, before = packed(images), images.clone()
    pure(monkeypatch)
    assert torch.equal(found, pack_network(network, images)(images))
    assert torch.equal(images, before)


class Awkward(nn.Module):
    """Every operand that must not be overwritten: the images, a weight, a value read again, one that
    shares memory, one of another shape."""

    def __init__(self) -> None:
        super().__init__()
        self.conv, self.bn, self.last = nn.Conv2d(3, 4, 3, padding=1), nn.BatchNorm2d(4), nn.BatchNorm2d(4)
        self.scale = nn.Parameter(torch.randn(1, 4, 1, 1))
        self.head = nn.Linear(4, 3)

    def forward(self, x: Tensor) -> Tensor:
        clipped = torch.relu(x) + x
        value = self.bn(self.conv(clipped))
        twice = torch.relu(value) + value
        weight = torch.relu(self.scale)
        wide = weight + twice.mean((2, 3), keepdim=True)
        flat = twice.flatten(1)
        shared = torch.relu(flat).unflatten(1, twice.shape[1:]) + twice
        summed = torch.add(self.last(shared), twice, alpha=2) + wide
        out: Tensor = self.head(torch.relu(summed).mean((2, 3)))
        return out


@pytest.mark.parametrize("counts", [[1], [2], [1, 2]])
def test_operands_that_are_not_ours_stay(counts: list[int], monkeypatch: pytest.MonkeyPatch) -> None:
    torch.manual_seed(0)
    network, images = Awkward(), torch.randn(3, 3, 6, 6)
    lively(network, images)
    before, weights = images.clone(), {k: v.clone() for k, v in network.state_dict().items()}
    order = batch_norm_order(network, images)
    engine = Fork(network, 1.5, counts, order, images)
    found = [engine.variants(engine.base(images)[1], range(len(counts))) for _ in range(2)]
    assert torch.equal(found[0], found[1])
    assert torch.equal(images, before)
    assert all(torch.equal(value, weights[name]) for name, value in network.state_dict().items())
    pure(monkeypatch)
    expected = Fork(network, 1.5, counts, order, images)
    assert torch.equal(found[0], expected.variants(expected.base(images)[1], range(len(counts))))
