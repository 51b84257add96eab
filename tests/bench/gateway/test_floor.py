"""The floor: a network of a known duration under known arrivals."""

import time

import torch
from torch import Tensor, nn

from bench.gateway.floor import FLOOR, Floor
from bench.gateway.load import arrivals
from bench.gateway.race import Measured, Plan, at_the_floor
from bench.gateway.servers import UNDEFENDED

IMAGES = torch.rand(4, 1, 2, 2)


class Slow(nn.Module):
    """Takes as long for any batch, and remembers how large it was. It has nothing to pack."""

    def __init__(self, seconds: float) -> None:
        super().__init__()
        self.seconds, self.sizes = seconds, list[int]()

    def forward(self, images: Tensor) -> Tensor:
        time.sleep(self.seconds)
        self.sizes.append(len(images))
        return images.flatten(1)


def test_whoever_waits_shares_a_batch() -> None:
    """At four times the rate of single images batches fill up, and everybody is answered."""
    network = Slow(0.02)
    floor = Floor(network, IMAGES)
    network.sizes.clear()
    found = floor.open_loop(rate=200, seconds=0.5, seed=0)
    assert sum(network.sizes) == len(found.latencies) == len(arrivals(200, 0.5, 0))
    assert max(network.sizes) == len(IMAGES)
    assert min(found.latencies) >= 0.02
    assert found.seconds >= 0.02 * len(network.sizes)


def test_alone_a_request_waits_for_the_network_only() -> None:
    found = Floor(Slow(0.01), IMAGES).open_loop(rate=20, seconds=0.5, seed=0)
    assert len(found.latencies) == len(arrivals(20, 0.5, 0)) > 4
    assert 0.01 <= min(found.latencies) < 0.02


def test_capacity_is_that_of_full_batches() -> None:
    network = Slow(0.02)
    floor = Floor(network, IMAGES)
    network.sizes.clear()
    rate = floor.capacity(0.1)
    assert set(network.sizes) == {4}
    assert 0.5 * 4 / 0.02 < rate <= 4 / 0.02


def test_it_is_asked_what_the_gateway_was_asked() -> None:
    gateway = Measured(UNDEFENDED, offered={0.3: 10.0, 0.7: 30.0})
    plan = Plan([UNDEFENDED], (0.3, 0.7), seconds=0.4, rounds=2)
    row = at_the_floor(Floor(Slow(0.01), IMAGES), plan, gateway, lambda *_: None)
    assert (row.server, row.offered, row.failed) == (FLOOR, gateway.offered, {0.3: 0, 0.7: 0})
    assert len(row.capacity) == 2
    for share, rate in gateway.offered.items():
        assert len(row.latency[share]) == sum(len(arrivals(rate, 0.2, number)) for number in range(2))
