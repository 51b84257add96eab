"""Which engine is chosen, why, and what it costs."""

import copy
import logging
import weakref
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from detectors import engine as module
from detectors.amplification import Copies, amplify, batch_norm_order
from detectors.base import InputError, UnsupportedNetwork
from detectors.engine import build_engine, flops, self_check
from detectors.fork import Fork
from models.zoo import resnet18
from tests.detectors.networks import UNTRACEABLE, UNTRUE, Blocks, Forward, lively, one_thread  # noqa: F401  (a fixture)

ORDER = ["bn1", "bn2", "bn3"]


def plain(n: Blocks, x: Tensor) -> Tensor:
    return n.tail(n.stem(x))


def network_of(forward: Forward) -> nn.Module:
    torch.manual_seed(0)
    network = lively(Blocks(plain), torch.rand(32, 3, 8, 8))
    network.recipe = forward  # type: ignore[assignment]
    return network


@pytest.fixture
def images() -> Tensor:
    return torch.rand(5, 3, 8, 8, generator=torch.Generator().manual_seed(1))


@pytest.mark.parametrize("batch", [1, 5])
def test_a_network_that_can_be_traced_is_forked(
    images: Tensor, batch: int, caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level(logging.WARNING):
        engine = build_engine(network_of(plain), 1.5, range(1, 4), ORDER, images[:batch])
    assert isinstance(engine, Fork)
    assert engine.engine == "fork"
    assert engine.counts == (1, 2, 3)
    assert not caplog.records


@pytest.mark.parametrize("forward", [*list(UNTRACEABLE)[:2], *UNTRUE], ids=lambda forward: forward.__name__)
def test_everything_else_falls_back_to_copies_and_says_why(
    forward: Forward, images: Tensor, caplog: pytest.LogCaptureFixture
) -> None:
    network = network_of(forward)
    with caplog.at_level(logging.WARNING, logger="triggerwall.amplification"):
        engine = build_engine(network, 1.5, [1, 2, 3], ORDER, images)
    assert isinstance(engine, Copies)
    why = "self-check failed" if forward in UNTRUE else UNTRACEABLE[forward]
    assert engine.engine.startswith("copies (")
    assert why in engine.engine
    (record,) = [record for record in caplog.records if record.name == "triggerwall.amplification"]
    assert record.levelno == logging.WARNING
    assert why in record.getMessage()
    if forward not in UNTRUE:
        logits, forks = engine.base(images)
        assert torch.equal(logits, network(images))
        assert engine.variants(forks, [0, 2], torch.tensor([1])).shape == (2, 1, 4)


def test_a_fork_that_fails_in_an_unforeseen_way_falls_back(
    images: Tensor, monkeypatch: pytest.MonkeyPatch
) -> None:
    def explode(*_: Any, **__: Any) -> None:
        raise RuntimeError("out of luck\nand more")

    monkeypatch.setattr(module, "Fork", explode)
    engine = build_engine(network_of(plain), 1.5, [1], ORDER, images)
    assert engine.engine == "copies (RuntimeError: out of luck)"


def test_copies_on_request(images: Tensor) -> None:
    engine = build_engine(network_of(plain), 1.5, [1], ORDER, images, "copies")
    assert isinstance(engine, Copies)
    assert engine.engine == "copies"
    with pytest.raises(InputError, match="prefer"):
        build_engine(network_of(plain), 1.5, [1], ORDER, images, "magic")  # type: ignore[arg-type]


def test_the_self_check_sees_one_wrong_variant(images: Tensor) -> None:
    network = network_of(plain)
    fork = Fork(network, 1.5, [1, 2], ORDER, images)
    self_check(fork, network, ORDER, images)
    with pytest.raises(UnsupportedNetwork, match=r"self-check failed \(variant 1\)"):
        self_check(fork, network, ["bn1", "bn3", "bn2"], images)  # other layers than the engine's
    fork.omega *= 1.01  # what the saved values are multiplied by
    with pytest.raises(UnsupportedNetwork, match="self-check failed"):
        self_check(fork, network, ORDER, images)


def test_the_self_check_holds_one_copy_at_a_time(images: Tensor, monkeypatch: pytest.MonkeyPatch) -> None:
    alive: weakref.WeakSet[nn.Module] = weakref.WeakSet()
    most = 0

    def counting(*arguments: Any) -> nn.Module:
        nonlocal most
        variant = amplify(*arguments)
        alive.add(variant)
        most = max(most, len(alive))
        return variant

    monkeypatch.setattr(module, "amplify", counting)
    build_engine(network_of(plain), 1.5, [1, 2, 3], ORDER, images)
    assert most == 1


def test_reduced_precision_is_checked_in_float32_and_kept(images: Tensor) -> None:
    engine = build_engine(network_of(plain), 1.5, [1, 2], ORDER, images, dtype=torch.bfloat16, fold=True)
    assert engine.engine == "fork (bfloat16, 3 layers folded)"
    assert engine.base(images)[1].points[0][0].dtype is torch.bfloat16


def test_omega_that_overflows_float32_is_refused(images: Tensor) -> None:
    with pytest.raises(InputError, match="overflow"):
        build_engine(network_of(plain), 1e20, [3], ORDER, images)


@pytest.mark.parametrize("prefer", ["fork", "copies"])
def test_bad_arguments_are_errors_and_not_a_fallback(images: Tensor, prefer: Any) -> None:
    network = network_of(plain)
    for omega, counts in ((0.0, [1]), (float("nan"), [1]), (1.5, []), (1.5, [4])):
        with pytest.raises(InputError):
            build_engine(network, omega, counts, ORDER, images, prefer)
    with pytest.raises(InputError, match="train mode"):
        build_engine(copy.deepcopy(network).train(), 1.5, [1], ORDER, images, prefer)
    with pytest.raises(InputError, match="at least one"):
        build_engine(network, 1.5, [1], ORDER, images[:0]).base(images[:0])


def test_flops_by_hand(images: Tensor) -> None:
    """first: 3→8 channels, 3×3, on 8×8 pixels; second: 8→8, twice; head: 8→4. Two a multiply-add."""
    first, second, head = 2 * 27 * 8 * 64, 2 * 72 * 8 * 64, 2 * 8 * 4
    network = network_of(plain)
    engine = Fork(network, 1.5, [1, 3, 2], ORDER, images)
    each = [5 * head, 5 * (2 * second + head), 5 * (second + head)]
    assert flops(engine, images) == {
        "base": 5 * (first + 2 * second + head),
        "variants": each,
        "together": sum(each),
    }
    assert flops(engine, images, [2, 0])["together"] == each[2] + each[0]
    full = flops(Copies(network, 1.5, [1, 3], ORDER), images)
    assert full["variants"] == [full["base"]] * 2


def test_flops_of_resnet18_as_promised() -> None:
    """k = 11, n = 5: everything within four base passes, base and deepest variant within 1.7."""
    torch.manual_seed(0)
    network, x = resnet18().eval(), torch.rand(1, 3, 32, 32)
    engine = Fork(network, 1.5, range(11, 16), batch_norm_order(network, x), x)
    cost = flops(engine, x)
    assert 1 + cost["together"] / cost["base"] == pytest.approx(3.97, abs=0.005)
    assert 1 + cost["variants"][4] / cost["base"] == pytest.approx(1.69, abs=0.005)
    assert cost["together"] == sum(cost["variants"])
