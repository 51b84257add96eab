"""A backdoor gets into a copy, and nothing gets into the network it was copied from."""

import pytest
import torch

from detectors.implant import LEAST_STEPS, MAX_STEPS, implant
from detectors.triggers import TRIGGERS
from tests.detectors.bars import CLASSES, bars, network, trained_network

SHAPE = (1, 16, 16)


@pytest.mark.parametrize("norm", [True, False])
@pytest.mark.parametrize("kind", ["patch", "blend"])
def test_the_copy_has_the_backdoor_and_the_network_is_untouched(kind: str, norm: bool) -> None:
    served = trained_network(norm)
    before = {name: value.clone() for name, value in served.state_dict().items()}
    images, _ = bars(200, seed=1)
    trigger = TRIGGERS[kind](SHAPE, 0)
    made = implant(served, images, trigger, 2)
    after = served.state_dict()
    assert all(torch.equal(after[name], value) for name, value in before.items())
    assert not any(p.requires_grad or p.grad is not None for p in served.parameters())
    assert not served.training
    fresh, labels = bars(200, seed=2)
    assert made.finished
    assert LEAST_STEPS <= made.steps < MAX_STEPS
    assert (made.network(trigger(fresh)).argmax(1) == 2).float().mean() >= 0.95
    assert (made.network(fresh).argmax(1) == labels).float().mean() >= 0.95
    assert not any(p.requires_grad for p in made.network.parameters())
    # The statistics of BatchNorm stay those of the network.
    assert all(torch.equal(value, before[name]) for name, value in made.network.named_buffers())


def test_the_same_seed_gives_the_same_copy() -> None:
    images, _ = bars(80, seed=1)
    trigger = TRIGGERS["patch"](SHAPE, 0)
    ends = [count_to(5) for _ in range(2)]
    first, second = (implant(trained_network(), images, trigger, 1, out_of_time=end) for end in ends)
    pairs = zip(first.network.parameters(), second.network.parameters(), strict=True)
    assert all(torch.equal(one, other) for one, other in pairs)


def count_to(limit: int):  # type: ignore[no-untyped-def]
    calls = iter(range(limit))
    return lambda: next(calls, None) is None


def test_time_ends_it() -> None:
    made = implant(trained_network(), bars(80)[0], TRIGGERS["patch"](SHAPE, 0), 1, out_of_time=count_to(2))
    assert made.steps == 3
    assert not made.finished


def test_a_network_that_gives_no_numbers_ends_it_at_once() -> None:
    broken = network()
    torch.nn.init.constant_(broken[0].weight, torch.nan)
    made = implant(broken.eval(), bars(60)[0], TRIGGERS["patch"](SHAPE, 0), CLASSES - 1)
    assert made.steps == 0
    assert not made.finished
