"""The engine and the scorer on a device other than the CPU, as far as that can be seen without one: with
fake tensors, which have a device and no data, an operator that mixes devices is an error."""

from typing import Any

import pytest
import torch
from torch import nn
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.utils._python_dispatch import TorchDispatchMode

from detectors import early_exit
from detectors.base import Terms
from detectors.early_exit import bounded_mean
from detectors.fork import Fork
from detectors.ibd_psc import IbdPscScorer
from tests.detectors.test_early_exit import Table
from tests.detectors.test_fork import hand_made, images, plain

CUDA = torch.device("cuda", 0)
ORDER = ["bn1", "bn2", "bn3"]


def moved(fork: Fork) -> Fork:
    """`fork` with its tensors on a fake GPU."""
    for segment in fork._segments:
        for module in segment.modules():
            for name, value in [*module._buffers.items(), *module._parameters.items()]:
                if value is not None:
                    module._parameters.pop(name, None)
                    module._buffers[name] = torch.empty(value.shape, dtype=value.dtype, device=CUDA)
    fork.network = nn.Linear(1, 1, device=CUDA).eval()
    return fork


@pytest.fixture(autouse=True)
def no_fake_tensor_is_kept() -> Any:
    yield
    early_exit._columns.cache_clear()


@pytest.mark.parametrize("settings", [{}, {"bucketed": True}, {"channels_last": True, "fold": True}], ids=str)
def test_everything_stays_on_the_device(settings: dict[str, Any]) -> None:
    fork = Fork(hand_made(plain), 1.5, [1, 2, 3], ORDER, images(), **settings)
    with FakeTensorMode(), torch.inference_mode():
        scorer = IbdPscScorer(moved(fork), [[2], [0, 1]])
        x = torch.empty(5, 3, 8, 8, device=CUDA)
        base = scorer.base(x)
        assert base is not None
        rows = torch.empty(3, dtype=torch.int64, device=CUDA)
        assert fork.variants(base.forks, [0, 1], rows).shape == (2, 3, 4)
        assert fork.variants(base.forks, [2, 0], rows).device == CUDA
        scores = scorer.score(base)
        assert scores.values.device == scores.exact.device == base.labels.device == CUDA
        assert scores.values.shape == (5,)


def test_a_tensor_that_stays_behind_is_found() -> None:
    fork = Fork(hand_made(plain), 1.5, [1, 2, 3], ORDER, images())
    with FakeTensorMode(), torch.inference_mode():
        moved(fork)
        weight = next(iter(fork._segments[0]._buffers))
        fork._segments[0]._buffers[weight] = torch.empty_like(
            fork._segments[0]._buffers[weight], device="cpu"
        )
        with pytest.raises(RuntimeError, match="device"):
            fork.base(torch.empty(5, 3, 8, 8, device=CUDA))


class Traffic(TorchDispatchMode):
    """Counts operators that wait for the device, and those that copy host memory to it."""

    def __init__(self) -> None:
        super().__init__()
        self.waits, self.copies = 0, 0

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        name = func._schema.name
        self.waits += name in (
            "aten::nonzero",
            "aten::_local_scalar_dense",
            "aten::is_nonzero",
            "aten::equal",
        )
        self.copies += name in ("aten::lift_fresh", "aten::_to_copy") and args[0].dtype in (
            torch.int64,
            torch.bool,
        )
        return func(*args, **(kwargs or {}))


def test_one_synchronisation_a_stage_and_none_without_thresholds() -> None:
    values = torch.tensor([[0.1, 0.0, 0.0], [0.5, 0.5, 0.5], [1.0, 1.0, 1.0]])
    stages, limits = [[0], [1], [2]], torch.full((3,), 0.6, dtype=torch.float64)

    def evaluate(which: Any, rows: Any) -> Any:
        found = values if rows is None else values.index_select(0, rows)
        return torch.stack([found.select(1, number) for number in which], 1)

    for thresholds, waits in ((limits, 3), (None, 0)):
        bounded_mean(Terms.unknown(3, 3, values.device), stages, evaluate, thresholds)  # makes what is kept
        terms = Terms.unknown(3, 3, values.device)
        with Traffic() as traffic:
            scores = bounded_mean(terms, stages, evaluate, thresholds)
        assert (traffic.waits, traffic.copies) == (waits, 0)
        assert (scores.values > 0.6).tolist() == [False, False, True]


def test_terms_that_were_begun_are_completed_without_thresholds() -> None:
    table = Table(torch.tensor([[0.0, 1.0], [1.0, 1.0]]))
    terms = Terms.unknown(2, 2, table.values.device)
    bounded_mean(terms, [[0], [1]], table, torch.tensor([0.5, 0.5], dtype=torch.float64))
    assert terms.known.tolist() == [[True, False], [True, True]]
    assert bounded_mean(terms, [[0], [1]], table, None).values.tolist() == [0.5, 1.0]
    assert terms.known.all()
