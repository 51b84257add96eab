"""The fork engine against amplified deep copies: traps, settings, overflow, bad input."""

import math
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.utils.flop_counter import FlopCounterMode

from detectors.amplification import Copies, batch_norm_order
from detectors.base import InputError, UnsupportedNetwork
from detectors.fork import ROWS_ALONG, ROWS_TOGETHER, Fork
from models.zoo import ZOO, resnet20
from tests.detectors.networks import TRAPS, UNTRACEABLE, Blocks, ByHand, Forward, distance, lively, one_thread  # noqa: F401  (a fixture)

ROUNDING = 2e-5


def images(batch: int = 5, *shape: int, seed: int = 1) -> Tensor:
    return torch.rand(batch, *(shape or (3, 8, 8)), generator=torch.Generator().manual_seed(seed))


def hand_made(forward: Forward) -> nn.Module:
    torch.manual_seed(0)
    return lively(Blocks(forward), images(64))


def plain(n: Blocks, x: Tensor) -> Tensor:
    return n.tail(n.stem(x))


def assert_equals_copies(network: nn.Module, x: Tensor, counts: list[int], **settings: Any) -> Fork:
    order = batch_norm_order(network, x)
    fork, copies = Fork(network, 1.5, counts, order, x, **settings), Copies(network, 1.5, counts, order)
    (base, forks), (expected, originals) = fork.base(x), copies.base(x)
    assert distance(base, expected) < ROUNDING
    saved = [value.clone() for point in forks.points for value in point]
    rows = torch.tensor([3, 0])
    everything = list(range(len(counts)))
    for which in (everything, everything[::-1], *([number] for number in everything)):
        expected = copies.variants(originals, which)
        found = fork.variants(forks, which)
        assert found.dtype is torch.float32
        assert distance(found, expected) < ROUNDING
        spread = expected - expected.mean(1, keepdim=True)
        error = (fork.variants(forks, which, rows) - expected[:, rows]).abs().amax()
        assert error / spread.abs().amax() < ROUNDING
    for along in (everything, everything[-1:], [everything[0], *everything[2:]]):
        logits, joined = fork.base(x, along)
        assert distance(logits, base) < ROUNDING
        assert set(joined.known) == set(along)
        for which in (everything, everything[::-1], along):
            expected = copies.variants(originals, which)
            assert distance(fork.variants(joined, which), expected) < ROUNDING
            error = (fork.variants(joined, which, rows) - expected[:, rows]).abs().amax()
            assert error / spread.abs().amax() < ROUNDING
    unchanged = [value for point in forks.points for value in point]
    assert all(torch.equal(before, after) for before, after in zip(saved, unchanged, strict=True))
    single, alone = fork.base(x[:1])
    assert distance(torch.cat([single, base[1:]]), copies.base(x)[0]) < ROUNDING
    torch.testing.assert_close(
        fork.variants(alone, everything, torch.tensor([0])),
        copies.variants(originals, everything)[:, :1],
        rtol=ROUNDING,
        atol=ROUNDING * float(spread.abs().amax()),
    )
    return fork


def line(gamma: float, beta: float) -> nn.BatchNorm1d:
    """A BatchNorm that computes γx + β exactly."""
    layer = nn.BatchNorm1d(2, eps=0.5)
    nn.init.constant_(layer.weight, gamma)
    nn.init.constant_(layer.bias, beta)
    assert layer.running_var is not None
    layer.running_var.fill_(0.5)
    return layer


def test_by_hand() -> None:
    """x → 2x + 1 → relu → 2y + 1: with ω = 3, variant 1 is 3(2y + 1), variant 2 is 3(2 · 3(2x + 1) + 1)."""
    network = nn.Sequential(line(2.0, 1.0), nn.ReLU(inplace=True), line(2.0, 1.0)).eval()
    x = torch.tensor([[0.0, 1.0], [-1.0, 2.0]])
    engine = Fork(network, 3.0, [1, 2], ["0", "2"], x)
    logits, forks = engine.base(x)
    torch.testing.assert_close(logits, torch.tensor([[3.0, 7.0], [1.0, 11.0]]))
    one, two = [[9.0, 21.0], [3.0, 33.0]], [[21.0, 57.0], [3.0, 93.0]]
    torch.testing.assert_close(engine.variants(forks, [0, 1]), torch.tensor([one, two]))
    torch.testing.assert_close(engine.variants(forks, [1, 0]), torch.tensor([two, one]))
    torch.testing.assert_close(engine.variants(forks, [1], torch.tensor([1])), torch.tensor([[[3.0, 93.0]]]))


def test_what_is_saved_is_what_is_live() -> None:
    network = nn.Sequential(line(2.0, 1.0), nn.ReLU(), line(2.0, 1.0)).eval()
    x = torch.tensor([[0.0, 1.0]])
    _, forks = Fork(network, 3.0, [1, 2], ["0", "2"], x).base(x)
    first, second = torch.tensor([[1.0, 3.0]]), torch.tensor([[3.0, 7.0]])
    torch.testing.assert_close(forks.points, ((first,), (second,)))


@pytest.mark.parametrize("forward", TRAPS, ids=lambda forward: forward.__name__)
def test_traps(forward: Forward) -> None:
    assert_equals_copies(hand_made(forward), images(), [1, 2, 3])


@pytest.mark.parametrize("forward", TRAPS[1::2], ids=lambda forward: forward.__name__)
def test_traps_in_fast_arithmetic(forward: Forward) -> None:
    assert_equals_copies(hand_made(forward), images(), [1, 2, 3], fold=True, channels_last=True)


@pytest.mark.parametrize("counts", [[1], [3], [2, 1], [3, 3, 1], [1, 3, 2, 3]], ids=str)
def test_counts_in_any_order(counts: list[int]) -> None:
    assert_equals_copies(hand_made(plain), images(), counts)


@pytest.mark.parametrize(
    ("forward", "reason"), UNTRACEABLE.items(), ids=lambda value: getattr(value, "__name__", "")
)
def test_refused_when_traced(forward: Forward, reason: str) -> None:
    network = Blocks(forward).eval()
    with pytest.raises(UnsupportedNetwork, match=reason):
        Fork(network, 1.5, [1, 2, 3], ["bn1", "bn2", "bn3"], images())


def test_a_batch_norm_with_its_own_arithmetic_is_refused() -> None:
    network = Blocks(plain)
    network.bn2 = ByHand(8)
    with pytest.raises(UnsupportedNetwork, match="'bn2' does not compute a plain batch_norm"):
        Fork(network.eval(), 1.5, [1], ["bn1", "bn2", "bn3"], images())


NORMS: dict[str, tuple[Callable[[], nn.Module], tuple[int, ...]]] = {
    "1d": (
        lambda: nn.Sequential(nn.BatchNorm1d(6), nn.Linear(6, 6), nn.BatchNorm1d(6), nn.Linear(6, 4)),
        (6,),
    ),
    "1d over a sequence": (
        lambda: nn.Sequential(nn.Conv1d(3, 6, 3), nn.BatchNorm1d(6), nn.Flatten(), nn.Linear(36, 4)),
        (3, 8),
    ),
    "3d": (
        lambda: nn.Sequential(nn.Conv3d(2, 6, 3), nn.BatchNorm3d(6), nn.Flatten(), nn.Linear(48, 4)),
        (2, 4, 4, 4),
    ),
    "sync": (
        lambda: nn.Sequential(nn.Conv2d(3, 6, 3), nn.SyncBatchNorm(6), nn.Flatten(), nn.Linear(216, 4)),
        (3, 8, 8),
    ),
    "no gamma and beta": (
        lambda: nn.Sequential(
            nn.Conv2d(3, 6, 3), nn.BatchNorm2d(6, affine=False), nn.Flatten(), nn.Linear(216, 4)
        ),
        (3, 8, 8),
    ),
}


@pytest.mark.parametrize("kind", NORMS)
@pytest.mark.parametrize("fold", [False, True])
def test_kinds_of_batch_norm(kind: str, fold: bool) -> None:
    build, shape = NORMS[kind]
    torch.manual_seed(0)
    # SyncBatchNorm refuses to train outside a process group: it keeps its initial statistics.
    network = lively(build(), images(64, *shape)) if kind != "sync" else build().eval().requires_grad_(False)
    assert_equals_copies(network, images(5, *shape), [1, 2] if kind == "1d" else [1], fold=fold)


def test_one_module_under_two_names() -> None:
    torch.manual_seed(0)
    layer = nn.BatchNorm2d(3)
    network = lively(
        nn.Sequential(layer, nn.Conv2d(3, 3, 3), layer, nn.Flatten(), nn.Linear(108, 4)), images(64)
    )
    assert batch_norm_order(network, images()) == ["0"]
    assert_equals_copies(network, images(), [1])


def test_parameters_are_shared_and_unchanged() -> None:
    network = hand_made(plain)
    before = {name: value.clone() for name, value in network.state_dict().items()}
    fork = assert_equals_copies(network, images(), [1, 2, 3])
    own = {value.data_ptr() for value in network.state_dict().values()}
    held = [value for part in fork._segments for value in part.state_dict().values()]
    assert held
    assert all(value.data_ptr() in own for value in held)
    assert all(torch.equal(before[name], value) for name, value in network.state_dict().items())


def test_calls_do_not_influence_each_other() -> None:
    network, x = hand_made(plain), images()
    fork = Fork(network, 1.5, [1, 2, 3], ["bn1", "bn2", "bn3"], x)
    logits, forks = fork.base(x)
    first = fork.variants(forks, [0, 1, 2])
    fork.base(images(2, seed=9))
    fork.variants(forks, [2], torch.tensor([4]))
    assert torch.equal(fork.variants(forks, [0, 1, 2]), first)
    assert torch.equal(fork.base(x)[0], logits)


def test_what_runs_along_costs_no_arithmetic_of_its_own() -> None:
    """The operators of one pass with three variants do the work of base and variants; asking again, none."""
    network, x = hand_made(plain), images(2)
    fork = Fork(network, 1.5, [1, 2, 3], ["bn1", "bn2", "bn3"], x)
    with FlopCounterMode(display=False) as apart:
        fork.variants(fork.base(x)[1], [0, 1, 2])
    with FlopCounterMode(display=False) as along:
        forks = fork.base(x, [0, 1, 2])[1]
    assert along.get_total_flops() == apart.get_total_flops()
    assert forks.points == ((), (), ())  # nothing is left to start
    with FlopCounterMode(display=False) as again:
        fork.variants(forks, [2, 0], torch.tensor([1]))
    assert again.get_total_flops() == 0


def test_variants_do_not_run_along_with_many_images() -> None:
    network, x = hand_made(plain), images(ROWS_ALONG // 2)
    fork = Fork(network, 1.5, [1, 2, 3], ["bn1", "bn2", "bn3"], x)
    assert set(fork.base(x, [1])[1].known) == {1}
    assert not fork.base(x, [1, 2])[1].known


@pytest.mark.parametrize(("batch", "sizes"), [(5, [5]), (20, [3, 2]), (65, [1] * 5)])
def test_a_cpu_runs_no_more_rows_together_than_it_gains_by(
    monkeypatch: pytest.MonkeyPatch, batch: int, sizes: list[int]
) -> None:
    order, counts, x = ["bn1", "bn2", "bn3"], [1, 3, 2, 3, 1], images(batch)
    network = hand_made(plain)
    fork, copies = Fork(network, 1.5, counts, order, x), Copies(network, 1.5, counts, order)
    run, seen = fork._variants, []

    def watched(forks: Any, which: list[int], rows: Tensor | None) -> Tensor:
        seen.append(len(which))
        return run(forks, which, rows)

    monkeypatch.setattr(fork, "_variants", watched)
    found = fork.variants(fork.base(x)[1], range(5))
    assert seen == sizes
    assert batch * sizes[0] <= max(batch, ROWS_TOGETHER)
    assert distance(found, copies.variants(copies.base(x)[1], range(5))) < ROUNDING


def test_any_batch_size_traced_on_one_image() -> None:
    network, order = hand_made(plain), ["bn1", "bn2", "bn3"]
    fork, copies = (Fork(network, 1.5, [3, 1], order, images(1)), Copies(network, 1.5, [3, 1], order))
    for batch in (1, 2, 7):
        x = images(batch)
        expected = copies.variants(copies.base(x)[1], [0, 1])
        torch.testing.assert_close(fork.variants(fork.base(x)[1], [0, 1]), expected, rtol=1e-4, atol=1e-4)


def test_channels_last_is_kept_in_what_is_saved() -> None:
    network, x = hand_made(plain), images()
    fork = Fork(network, 1.5, [3], ["bn1", "bn2", "bn3"], x, channels_last=True)
    _, forks = fork.base(x)
    assert forks.points[0][0].is_contiguous(memory_format=torch.channels_last)
    assert network.get_submodule("second").weight.is_contiguous(memory_format=torch.channels_last)
    assert fork.engine == "fork (channels_last)"


def test_only_a_batch_norm_that_solely_follows_its_convolution_is_folded() -> None:
    def forward(n: Blocks, x: Tensor) -> Tensor:
        y = n.second(n.stem(x))  # `stem` folds; `y` is read twice: bn2 does not; bn3 follows a sum
        out: Tensor = n.head(n.bn3(n.bn2(y) + y).mean((2, 3)))
        return out

    assert (
        assert_equals_copies(hand_made(forward), images(), [1, 2, 3], fold=True).engine
        == "fork (1 layers folded)"
    )


def test_bfloat16_stays_near_float32() -> None:
    torch.manual_seed(0)
    network, x = lively(resnet20(), images(32, 3, 32, 32)), images(4, 3, 32, 32)
    order = batch_norm_order(network, x)
    reduced = Fork(network, 1.5, [9, 10], order, x, dtype=torch.bfloat16)
    exact = Fork(network, 1.5, [9, 10], order, x)
    assert reduced.engine == "fork (bfloat16)"
    (logits, forks), (expected, originals) = reduced.base(x), exact.base(x)
    assert logits.dtype is torch.float32
    assert forks.points[0][1].dtype is torch.bfloat16
    assert 0 < distance(logits, expected) < 0.15
    assert 0 < distance(reduced.variants(forks, [0, 1]), exact.variants(originals, [0, 1])) < 0.15


def test_rows_that_overflow_in_half_precision_are_computed_in_float32() -> None:
    """The second image is a million times brighter: its activations pass 65,504, float16's largest."""
    network, x = hand_made(plain), images(3)
    order = ["bn1", "bn2", "bn3"]
    bright = torch.stack([x[0], 1e6 * x[1], x[2]])
    half, exact = (
        Fork(network, 10.0, [2, 3], order, x, dtype=dtype) for dtype in (torch.float16, torch.float32)
    )
    (logits, forks), (expected, originals) = half.base(bright), exact.base(bright)
    with half._arithmetic(x.device), torch.inference_mode():
        assert half._base(bright)[0].isfinite().all(1).tolist() == [True, False, True]
    torch.testing.assert_close(logits[1], expected[1], rtol=1e-5, atol=0)
    assert distance(logits[[0, 2]], expected[[0, 2]]) < 0.05
    found, wanted = half.variants(forks, [1, 0]), exact.variants(originals, [1, 0])
    torch.testing.assert_close(found[:, 1], wanted[:, 1], rtol=1e-5, atol=0)
    assert distance(found[:, [0, 2]], wanted[:, [0, 2]]) < 0.05
    along, joined = half.base(bright, [0, 1])
    torch.testing.assert_close(along[1], expected[1], rtol=1e-5, atol=0)
    torch.testing.assert_close(half.variants(joined, [1, 0])[:, 1], wanted[:, 1], rtol=1e-5, atol=0)
    chosen = half.variants(forks, [0], torch.tensor([2, 1]))
    torch.testing.assert_close(chosen[:, 1], wanted[1:, 1], rtol=1e-5, atol=0)


def test_only_the_amplified_rows_overflow() -> None:
    """The plain logits fit float16; with ω = 300 on three layers the variants' do not."""
    network, x = hand_made(plain), images(3)
    order = ["bn1", "bn2", "bn3"]
    half, exact = (
        Fork(network, 300.0, [3], order, x, dtype=dtype) for dtype in (torch.float16, torch.float32)
    )
    (logits, forks), (expected, originals) = half.base(x), exact.base(x)
    assert distance(logits, expected) < 0.05
    found = half.variants(forks, [0])
    assert bool(found.isfinite().all())
    torch.testing.assert_close(found, exact.variants(originals, [0]), rtol=1e-5, atol=0)
    torch.testing.assert_close(half.base(x, [0])[1].known[0], found[0], rtol=1e-5, atol=0)


def test_a_fork_needs_sensible_arguments() -> None:
    network, x, order = hand_made(plain), images(), ["bn1", "bn2", "bn3"]
    for omega in (0.0, -1.0, math.nan, math.inf):
        with pytest.raises(InputError, match="omega"):
            Fork(network, omega, [1], order, x)
    for counts in ([], [0], [4]):
        with pytest.raises(InputError):
            Fork(network, 1.5, counts, order, x)
    with pytest.raises(InputError, match="dtype"):
        Fork(network, 1.5, [1], order, x, dtype=torch.float64)
    with pytest.raises(InputError, match="train mode"):
        Fork(Blocks(plain), 1.5, [1], order, x)
    with pytest.raises(InputError, match="channels_last"):
        Fork(nn.Sequential(line(1.0, 0.0)).eval(), 1.5, [1], ["0"], torch.rand(2, 2), channels_last=True)


@pytest.fixture(scope="module")
def fork() -> Fork:
    return Fork(hand_made(plain), 1.5, [1], ["bn1", "bn2", "bn3"], images())


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        (torch.zeros(0, 3, 8, 8), "at least one"),
        (torch.zeros(1, 3, 8, 9), r"of shape \(3, 8, 8\)"),
        (torch.zeros(1, 3, 8, 8, dtype=torch.int64), "int64"),
        (torch.zeros(1, 3, 8, 8, dtype=torch.complex64), "complex64"),
        (torch.zeros(1, 3, 8, 8, device="meta"), "meta"),
    ],
)
def test_a_fork_needs_sensible_images(fork: Fork, wrong: Tensor, message: str) -> None:
    with pytest.raises(InputError, match=message):
        fork.base(wrong)


def test_a_variant_needs_a_number_and_an_image(fork: Fork) -> None:
    forks = fork.base(images())[1]
    for which, rows in (([], None), ([0], torch.tensor([], dtype=torch.int64))):
        with pytest.raises(InputError, match="at least one"):
            fork.variants(forks, which, rows)


def test_a_network_that_is_sent_back_to_training_is_refused() -> None:
    network = hand_made(plain)
    engine = Fork(network, 1.5, [1], ["bn1", "bn2", "bn3"], images())
    network.train()
    with pytest.raises(InputError, match="train mode"):
        engine.base(images())


def test_the_zoo_without_batch_norm_is_the_only_one_left_out() -> None:
    with pytest.raises(UnsupportedNetwork, match="has none"):
        batch_norm_order(ZOO["badnets_cnn"]().eval(), torch.rand(1, 1, 28, 28))
