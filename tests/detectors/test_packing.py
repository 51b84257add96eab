"""Packed weights give the logits of ordinary ones, and are held once for all who run the network."""

import pytest
import torch
from torch import Tensor, nn
from torch.utils.flop_counter import FlopCounterMode

from detectors import packing as module
from detectors.amplification import Copies, batch_norm_order
from detectors.base import InputError, UnsupportedNetwork
from detectors.engine import build_engine
from detectors.fork import Fork
from detectors.packing import pack_network
from models.zoo import resnet20
from tests.detectors.networks import distance, lively, one_thread  # noqa: F401  (a fixture)
from tests.detectors.test_fork_networks import SMALL_ZOO, TORCHVISION, build_named


def small(seed: int = 0) -> tuple[nn.Module, Tensor]:
    torch.manual_seed(seed)
    images = torch.rand(5, 3, 32, 32)
    return lively(resnet20(), images), images


@pytest.mark.parametrize("name", [*(f"zoo:{name}" for name in SMALL_ZOO), *TORCHVISION])
def test_it_gives_the_logits_of_the_network(name: str) -> None:
    torch.manual_seed(0)
    network, side = build_named(name)
    images = torch.rand(6, 3, side, side)
    lively(network, images)
    packed = pack_network(network, images[:2])
    with torch.inference_mode():
        for batch in (images[:1], images[1:4], images):
            assert (
                distance(
                    torch.cat([packed(batch), packed(images)]), torch.cat([network(batch), network(images)])
                )
                < 2e-3
            )


def geometries() -> list[nn.Module]:
    return [
        nn.Conv2d(4, 8, 3),
        nn.Conv2d(4, 8, 3, bias=False),
        nn.Conv2d(4, 6, (3, 2), stride=(2, 1), padding=(0, 1)),
        nn.Conv2d(4, 8, 3, dilation=2, padding=2),
        nn.Conv2d(4, 8, 3, groups=2),
        nn.Conv2d(4, 4, 5, groups=4, padding=2),
        nn.Conv2d(4, 8, 3, padding="same"),
        nn.Conv2d(4, 8, 3, padding=1, padding_mode="reflect"),
        nn.Conv2d(4, 7, 1),
    ]


@pytest.mark.parametrize("convolution", geometries(), ids=str)
def test_every_geometry(convolution: nn.Module) -> None:
    """Beside a plain convolution, so that there is always something to pack."""
    network = nn.Sequential(nn.Conv2d(3, 4, 1), convolution, nn.ReLU(), nn.AdaptiveAvgPool2d(2), nn.Flatten())
    network = network.eval().requires_grad_(False)
    images = torch.rand(3, 3, 12, 10)
    packed = pack_network(network, images)
    torch.testing.assert_close(packed(images), network(images), rtol=1e-4, atol=1e-5)
    same = getattr(convolution, "padding", None) == "same"
    assert packed.engine == f"traced (0 layers folded, {1 if same else 2} convolutions packed)"


def test_the_network_keeps_its_own_weights() -> None:
    network, images = small()
    before = {name: tensor.clone() for name, tensor in network.state_dict().items()}
    addresses = {name: tensor.data_ptr() for name, tensor in network.state_dict().items()}
    pack_network(network, images)
    for name, tensor in network.state_dict().items():
        assert torch.equal(tensor, before[name])
        assert tensor.data_ptr() == addresses[name]


def test_an_engine_shares_the_packed_weights() -> None:
    network, images = small()
    packed = pack_network(network, images)
    order = batch_norm_order(network, images)
    engine = build_engine(network, 1.5, [3, 9], order, images, traced=packed.trace)
    assert isinstance(engine, Fork)
    assert engine.engine == "fork (21 layers folded, 21 convolutions packed)"
    held = {id(tensor) for part in engine._segments for tensor in part.__dict__.get("_buffers", {}).values()}
    assert held
    assert held <= {id(tensor) for tensor in packed.trace.constants.values()}
    (logits, forks), (expected, originals) = (
        e.base(images) for e in (engine, Copies(network, 1.5, [3, 9], order))
    )
    assert distance(logits, expected) < 1e-4
    variants = Copies(network, 1.5, [3, 9], order).variants(originals, [0, 1])
    assert distance(engine.variants(forks, [0, 1]), variants) < 1e-3
    assert torch.equal(engine.base(images)[0], packed(images))


def test_an_engine_for_which_sharing_fails_traces_its_own() -> None:
    network, images = small()
    order = batch_norm_order(network, images)
    traced = pack_network(network, images).trace
    for node, tensor in traced.constants.items():
        if node.name.endswith("_folded_bias"):
            traced.constants[node] = tensor + 1  # another network now
    engine = build_engine(network, 1.5, [3, 9], order, images, traced=traced)
    assert engine.engine == "fork"


def test_no_weights_are_held_that_nobody_reads() -> None:
    """Folding makes weights of its own, which packing replaces."""
    network, images = small()
    packed = pack_network(network, images)
    convolutions = [m for m in network.modules() if isinstance(m, nn.Conv2d)]
    layouts = [tensor for tensor in packed.trace.constants.values() if tensor.layout is torch._mkldnn]  # type: ignore[attr-defined]
    assert len(layouts) == len(convolutions)
    plain = [tensor for tensor in packed.trace.constants.values() if tensor.layout is torch.strided]
    assert sum(tensor.numel() for tensor in plain) < 0.02 * sum(c.weight.numel() for c in convolutions)


def test_operations_are_counted_as_without() -> None:
    network, images = small()
    packed = pack_network(network, images)
    counts = []
    for run in (network, packed):
        with FlopCounterMode(display=False) as counter, torch.inference_mode():
            run(images)
        counts.append(counter.get_total_flops())
    assert counts[0] == counts[1] > 0


def test_a_traced_network_has_its_own_arithmetic() -> None:
    network, images = small()
    traced = pack_network(network, images).trace
    order = batch_norm_order(network, images)
    for other in ({"dtype": torch.bfloat16}, {"channels_last": True}, {"compile": True}):
        with pytest.raises(InputError, match="own arithmetic"):
            Fork(network, 1.5, [2], order, images, traced=traced, **other)  # type: ignore[arg-type]


def test_what_cannot_be_packed_says_why(monkeypatch: pytest.MonkeyPatch) -> None:
    flat = nn.Sequential(nn.Flatten(), nn.Linear(12, 3)).eval()
    with pytest.raises(UnsupportedNetwork, match="no convolution"):
        pack_network(flat, torch.rand(2, 3, 2, 2))
    network, images = small()
    with pytest.raises(UnsupportedNetwork, match="not for meta"):
        pack_network(network, images.to("meta"))
    monkeypatch.setattr(module, "_reorder", lambda *_: None.missing)  # type: ignore[attr-defined]
    with pytest.raises(UnsupportedNetwork, match="AttributeError"):
        pack_network(network, images)
    monkeypatch.setattr(module, "PACKED_CONVOLUTION", None)
    with pytest.raises(UnsupportedNetwork, match="this build of torch"):
        pack_network(network, images)


def test_the_check_sees_other_logits(monkeypatch: pytest.MonkeyPatch) -> None:
    network, images = small()
    reorder = module._reorder
    monkeypatch.setattr(
        module, "_reorder", lambda weight, *rest: reorder((weight.to_dense() * 1.01).to_mkldnn(), *rest)
    )
    with pytest.raises(UnsupportedNetwork, match=r"self-check failed \(packed\)"):
        pack_network(network, images)
