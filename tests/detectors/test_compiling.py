"""torch.compile on the fork's segments: the same logits, few compilations, and eager without a compiler."""

import logging
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, fx, nn

from detectors import compiling
from detectors.amplification import Copies
from detectors.compiling import WARM, compile_options, row_factors
from detectors.engine import build_engine
from detectors.fork import Fork
from tests.detectors.networks import TRAPS, Forward, lively, one_thread  # noqa: F401  (a fixture)
from tests.detectors.test_fork import assert_equals_copies, hand_made, images, line, plain

ORDER = ["bn1", "bn2", "bn3"]


@pytest.fixture
def graphs(monkeypatch: pytest.MonkeyPatch) -> Iterator[list[fx.GraphModule]]:
    """Compile as far as the graph, without a compiler; every graph that a backend would get is here."""
    seen: list[fx.GraphModule] = []

    def backend(graph: fx.GraphModule, _: Any) -> Any:
        seen.append(graph)
        return graph.forward

    monkeypatch.setattr(compiling, "compile_options", lambda _: {"backend": backend})
    torch._dynamo.reset()
    yield seen
    torch._dynamo.reset()


def small() -> nn.Module:
    torch.manual_seed(0)
    layers = nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.ReLU(), nn.Flatten(), nn.Linear(144, 4)
    return lively(nn.Sequential(*layers), images(64))


def test_factors_by_hand() -> None:
    factors = row_factors(4, (0, 1, 3), 1.5, torch.device("cpu"))
    assert factors.T.tolist() == [[1, 1, 1, 1], [1.5, 1, 1, 1], [1.5, 1.5, 1.5, 1]]


@pytest.mark.parametrize("forward", TRAPS[:2], ids=lambda forward: forward.__name__)
def test_compiled_segments_equal_copies(forward: Forward, graphs: list[fx.GraphModule]) -> None:
    fork = assert_equals_copies(hand_made(forward), images(), [1, 2, 3], compile=True)
    assert fork.engine == "fork (compiled)"
    assert graphs


def test_batch_sizes_are_not_compiled_for_one_by_one(graphs: list[fx.GraphModule]) -> None:
    network, x = hand_made(plain), images(40)
    fork = build_engine(network, 1.5, [1, 2, 3], ORDER, x, compile=True)
    assert isinstance(fork, Fork)
    copies = Copies(network, 1.5, [1, 2, 3], ORDER)
    at_start = len(graphs)
    assert at_start <= len(WARM) * len(fork._segments)
    for batch in (1, 3, 8, 17, 40):
        for along in ([], [1], [0, 1, 2]):
            forks, originals = fork.base(x[:batch], along)[1], x[:batch]
            for which in ([0, 2], [1]):
                found = fork.variants(forks, which, torch.arange(0, batch, 2))
                expected = copies.variants(originals, which)[:, ::2]
                torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-4)
    # Thirty shapes came by. That one more graph is made may happen, as torch keeps other guards too.
    assert len(graphs) <= at_start + 2
    assert fork.engine == "fork (compiled)"


@pytest.mark.usefixtures("graphs")
def test_reduced_precision_is_rounded_once() -> None:
    """A factor that bfloat16 cannot hold multiplies in float32, as the eager engine's number does."""
    network, x = hand_made(plain), images(3)
    compiled, eager = (
        Fork(network, 1.003, [3], ORDER, x, dtype=torch.bfloat16, compile=compile)
        for compile in (True, False)
    )
    found = compiled.variants(compiled.base(x)[1], [0])
    assert torch.equal(found, eager.variants(eager.base(x)[1], [0]))


def test_what_a_compiler_raises_makes_the_engine_eager(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """Also at a later call, when a compilation for another size fails: the answer is still right."""
    broken = False

    def backend(graph: fx.GraphModule, _: Any) -> Any:
        def run(*values: Tensor) -> Any:
            if broken:
                raise OSError("no space left on device\nand more")
            return graph.forward(*values)

        return run

    monkeypatch.setattr(compiling, "compile_options", lambda _: {"backend": backend})
    torch._dynamo.reset()
    network, x = hand_made(plain), images()
    fork = build_engine(network, 1.5, [1, 3], ORDER, x, compile=True)
    assert fork.engine == "fork (compiled)"
    broken = True
    with caplog.at_level(logging.WARNING, logger="triggerwall.amplification"):
        found = fork.variants(fork.base(x)[1], [0, 1])
    torch.testing.assert_close(found, Copies(network, 1.5, [1, 3], ORDER).variants(x, [0, 1]))
    assert fork.engine == "fork (eager, as torch.compile failed: OSError: no space left on device and more)"
    assert len([record for record in caplog.records if record.name == "triggerwall.amplification"]) == 1
    torch._dynamo.reset()


def test_a_compiler_that_computes_something_else_is_not_used(monkeypatch: pytest.MonkeyPatch) -> None:
    def backend(graph: fx.GraphModule, _: Any) -> Any:
        return lambda *values: [1.01 * value for value in graph.forward(*values)]

    monkeypatch.setattr(compiling, "compile_options", lambda _: {"backend": backend})
    torch._dynamo.reset()
    network, x = hand_made(plain), images()
    fork = build_engine(network, 1.5, [1, 3], ORDER, x, compile=True)
    assert fork.engine.startswith("fork (eager, as torch.compile failed: self-check failed (")
    torch.testing.assert_close(
        fork.variants(fork.base(x)[1], [0]), Copies(network, 1.5, [1, 3], ORDER).variants(x, [0])
    )
    torch._dynamo.reset()


def test_without_a_compiler(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """What a slim image has: inductor, and no C++ compiler that it could call."""
    monkeypatch.setenv("TORCHINDUCTOR_CACHE_DIR", str(tmp_path / "cache"))
    torch._dynamo.reset()
    network, x = small(), images()
    with torch._inductor.config.patch({"cpp.cxx": (None, str(tmp_path / "g++"))}):
        fork = build_engine(network, 1.5, [1], ["1"], x, compile=True)
    assert fork.engine.startswith("fork (eager, as torch.compile failed: ")
    found = fork.variants(fork.base(x)[1], [0])
    torch.testing.assert_close(found, Copies(network, 1.5, [1], ["1"]).variants(x, [0]))
    torch._dynamo.reset()


@pytest.mark.skipif(shutil.which("g++") is None, reason="needs a C++ compiler")
def test_with_a_compiler() -> None:
    torch._dynamo.reset()
    network, x = nn.Sequential(line(2.0, 1.0), nn.ReLU(inplace=True), line(2.0, 1.0)).eval(), torch.rand(3, 2)
    fork = Fork(network, 3.0, [1, 2], ["0", "2"], x, compile=True)
    copies = Copies(network, 3.0, [1, 2], ["0", "2"])
    torch.testing.assert_close(fork.variants(fork.base(x)[1], [0, 1]), copies.variants(x, [0, 1]))
    assert fork.engine == "fork (compiled)"
    torch._dynamo.reset()


def test_graphs_are_recorded_on_cuda_for_padded_batches() -> None:
    assert compile_options(torch.device("cuda")) == {"mode": "reduce-overhead"}
    assert compile_options(torch.device("cpu")) == {}
    assert not Fork(hand_made(plain), 1.5, [1], ORDER, images(), compile=True).bucketed
