"""The reference: amplified deep copies, and the order in which BatchNorm layers run."""

import math
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from detectors.amplification import Copies, amplify, batch_norm_order, check_counts
from detectors.base import InputError, UnsupportedNetwork


class Backwards(nn.Module):
    """Registers its layers in the opposite order of their execution, and one that never runs."""

    def __init__(self) -> None:
        super().__init__()
        self.late = nn.BatchNorm1d(2)
        self.auxiliary = nn.BatchNorm1d(2)
        self.early = nn.BatchNorm1d(2)

    def forward(self, x: Tensor) -> Tensor:
        x = self.early(x)
        if self.training:
            x = self.auxiliary(x)
        out: Tensor = self.late(x)
        return out


class Twice(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.shared = nn.BatchNorm1d(2)
        self.other = nn.BatchNorm1d(2)

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = self.shared(self.other(self.shared(x)))
        return out


def affine_line(gamma: float, beta: float, features: int = 2) -> nn.BatchNorm1d:
    """A BatchNorm that computes γx + β exactly: mean 0, variance + ε = 1."""
    layer = nn.BatchNorm1d(features, eps=0.5)
    nn.init.constant_(layer.weight, gamma)
    nn.init.constant_(layer.bias, beta)
    assert layer.running_var is not None
    layer.running_var.fill_(0.5)
    return layer.eval()


def test_order_is_execution_order_without_layers_that_do_not_run() -> None:
    network = Backwards().eval()
    assert [name for name, _ in network.named_children()] == ["late", "auxiliary", "early"]
    assert batch_norm_order(network, torch.rand(2, 2)) == ["early", "late"]


def test_a_layer_that_runs_twice_stands_where_it_ran_last() -> None:
    assert batch_norm_order(Twice().eval(), torch.rand(2, 2)) == ["other", "shared"]


def test_order_leaves_no_hooks_behind() -> None:
    network = Backwards().eval()
    batch_norm_order(network, torch.rand(2, 2))
    assert all(not module._forward_hooks for module in network.modules())


def test_no_batch_norm_is_unsupported() -> None:
    with pytest.raises(UnsupportedNetwork, match="has none"):
        batch_norm_order(nn.Linear(2, 2).eval(), torch.rand(2, 2))


def test_no_running_statistics_is_unsupported() -> None:
    network = nn.Sequential(nn.BatchNorm1d(2), nn.BatchNorm1d(2, track_running_stats=False)).eval()
    with pytest.raises(UnsupportedNetwork, match="'1' has no running statistics"):
        batch_norm_order(network, torch.rand(2, 2))


@pytest.mark.parametrize("count", [1, 2, 3])
def test_exactly_the_last_layers_are_amplified(count: int) -> None:
    network = nn.Sequential(*(affine_line(2.0, 1.0) for _ in range(3)))
    order = batch_norm_order(network, torch.rand(1, 2))
    variant = amplify(network, order[-count:], 3.0)
    gammas = [variant.get_submodule(name).weight[0].item() for name in order]
    assert gammas == [2.0] * (3 - count) + [6.0] * count
    assert [network.get_submodule(name).weight.detach()[0].item() for name in order] == [2.0] * 3


def test_copies_by_hand() -> None:
    """x → 2x + 1 → 2y + 1: with ω = 3, variant 1 is 3(2y + 1) and variant 2 is 3(2 · 3(2x + 1) + 1)."""
    network = nn.Sequential(affine_line(2.0, 1.0), affine_line(2.0, 1.0)).eval()
    engine = Copies(network, 3.0, [2, 1], ["0", "1"])
    logits, forks = engine.base(torch.tensor([[0.0, 1.0]]))
    torch.testing.assert_close(logits, torch.tensor([[3.0, 7.0]]))
    expected = torch.tensor([[[21.0, 57.0]], [[9.0, 21.0]]])
    torch.testing.assert_close(engine.variants(forks, [0, 1]), expected)
    torch.testing.assert_close(engine.variants(forks, [1]), expected[1:])


def test_a_layer_without_gamma_and_beta_is_its_output_times_omega() -> None:
    network = nn.Sequential(nn.BatchNorm1d(2, affine=False)).eval()
    x = torch.tensor([[1.0, -2.0]])
    torch.testing.assert_close(amplify(network, ["0"], 5.0)(x), 5.0 * network(x))


@pytest.mark.parametrize("omega", [0.0, -1.5, math.nan, math.inf])
def test_omega_out_of_range(omega: float) -> None:
    with pytest.raises(InputError, match="omega"):
        check_counts(omega, [1], 3)


@pytest.mark.parametrize(("counts", "message"), [([], "n ≥ 1"), ([0], "cannot"), ([1, 4], "cannot")])
def test_counts_out_of_range(counts: list[int], message: str) -> None:
    with pytest.raises(InputError, match=message):
        check_counts(1.5, counts, 3)


@pytest.mark.parametrize(
    ("images", "message"),
    [
        (torch.zeros(1, 2, dtype=torch.complex64), "complex64"),
        (torch.zeros(1, 2, dtype=torch.uint8), "uint8"),
        (torch.zeros(0, 2), "at least one"),
        (torch.zeros(()), "batch"),
        (torch.zeros(1, 2, device="meta"), "meta and the network is on cpu"),
    ],
)
def test_images_that_make_no_sense(images: Tensor, message: str) -> None:
    engine = Copies(nn.Sequential(affine_line(1.0, 0.0)).eval(), 1.5, [1], ["0"])
    with pytest.raises(InputError, match=message):
        engine.base(images)


def train_outer(network: nn.Module) -> Any:
    return network.train()


def train_inner(network: nn.Module) -> Any:
    return network.get_submodule("0").train()


@pytest.mark.parametrize("change", [train_outer, train_inner])
def test_train_mode(change: Any) -> None:
    network = nn.Sequential(affine_line(1.0, 0.0)).eval()
    change(network)
    with pytest.raises(InputError, match="train mode"):
        Copies(network, 1.5, [1], ["0"])


def test_half_precision_weights_have_nothing_to_fall_back_to() -> None:
    with pytest.raises(InputError, match="float32"):
        Copies(nn.Sequential(affine_line(1.0, 0.0)).eval().half(), 1.5, [1], ["0"])


def test_a_copy_shares_everything_but_what_it_amplifies() -> None:
    network = nn.Sequential(nn.Linear(3, 4), nn.BatchNorm1d(4), nn.Linear(4, 4), nn.BatchNorm1d(4)).eval()
    before = [parameter.clone() for parameter in network.parameters()]
    variant = amplify(network, ["3"], 2.0)
    own = {p.data_ptr() for p in variant.parameters()} - {p.data_ptr() for p in network.parameters()}
    assert own == {variant[3].weight.data_ptr(), variant[3].bias.data_ptr()}
    assert torch.equal(variant[3].weight, 2 * network[3].weight)
    assert all(torch.equal(now, then) for now, then in zip(network.parameters(), before, strict=True))
