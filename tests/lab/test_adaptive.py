from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from detectors.amplification import amplify, batch_norm_order
from detectors.profile import Profile
from detectors.scale_up import PAPER_SCALES
from lab.adaptive import amplified, as_served, build_objective
from lab.batches import Batch
from lab.data import LabError, open_images
from lab.record import load_attack
from lab.settings import TrainSettings
from lab.train import train
from models.loading import load_network
from tests.lab.tiny import TINY_CNN

EXAMPLE = torch.rand(2, 3, 12, 12, generator=torch.Generator().manual_seed(0))


def network() -> nn.Module:
    """Three BatchNorm layers with statistics of their own, and dropout; in train mode."""
    torch.manual_seed(0)
    built = nn.Sequential(
        nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.ReLU(), nn.Conv2d(4, 5, 3), nn.BatchNorm2d(5), nn.ReLU(),
        nn.Conv2d(5, 6, 3), nn.BatchNorm2d(6), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Dropout(),
        nn.Linear(6, 3),
    )  # fmt: skip
    with torch.no_grad():
        built(torch.rand(20, 3, 12, 12))
    return built.train()


def batch(triggered: int = 3, count: int = 9) -> Batch:
    generator = torch.Generator().manual_seed(1)
    images = torch.rand(count, 3, 12, 12, generator=generator)
    truth = torch.arange(count) % 3
    hit = torch.arange(count) < triggered
    return Batch(images, torch.where(hit, 1, truth), truth, hit)


def states(module: nn.Module) -> list[bool]:
    return [each.training for each in module.modules()]


def test_as_served_gives_back_every_mode() -> None:
    net = network()
    net[1].eval()
    before = states(net)
    with as_served(net):
        assert not any(states(net))
    assert states(net) == before


def test_amplified_outputs_are_those_of_amplified_weights() -> None:
    net = network().eval()
    names = batch_norm_order(net, EXAMPLE)[-2:]
    expected = amplify(net, names, 1.5)(EXAMPLE)
    with amplified([net.get_submodule(name) for name in names], 1.5):
        torch.testing.assert_close(net(EXAMPLE), expected)
    torch.testing.assert_close(net(EXAMPLE), network().eval()(EXAMPLE))


def clipped(logits: Tensor) -> Tensor:
    return torch.stack([row * min(1.0, 20 / row.abs().max().item()) for row in logits])


@pytest.mark.parametrize(("name", "rows"), [("psc1", slice(0, 3)), ("psc2", slice(3, 9))])
def test_amplification_takes_one_more_layer_each_step(name: str, rows: slice) -> None:
    net, some = network(), batch()
    objective = build_objective(name, net, EXAMPLE)
    assert objective is not None
    names = batch_norm_order(network().eval(), EXAMPLE)
    losses = []
    for step in range(4):
        deep = amplify(network().eval(), names[-(step % 3 + 1) :], 1.5)
        expected = F.cross_entropy(clipped(deep(some.images[rows])), some.truth[rows])
        losses.append(objective(some, step))
        torch.testing.assert_close(losses[-1], expected)
    assert torch.equal(losses[0], losses[3])


def test_scaled_images_are_to_get_their_true_labels() -> None:
    net, some = network(), batch()
    objective = build_objective("scaled", net, EXAMPLE)
    assert objective is not None
    served = network().eval()
    losses = [
        F.cross_entropy(served((some.images[:3] * scale).clamp(0, 1)), some.truth[:3])
        for scale in PAPER_SCALES
    ]
    torch.testing.assert_close(objective(some, 0), torch.stack(losses).mean())


def test_the_profile_is_that_of_the_detector() -> None:
    class Served:
        num_classes = 3

        def logits(self, images: Tensor) -> Tensor:
            return network().eval()(images)

    net, some = network(), batch(triggered=3, count=12)
    objective = build_objective("profile", net, EXAMPLE)
    assert objective is not None
    benign = [i for i in range(3, 12) if some.labels[i] == 1]
    profiles = objective._profiles(some.images, torch.tensor(1))  # type: ignore[attr-defined]
    predicted_target = network().eval()(some.images).argmax(1) == 1
    measured = Profile(Served()).measure(some.images)  # type: ignore[arg-type]
    torch.testing.assert_close(profiles[predicted_target], measured[predicted_target])
    spread = profiles[benign].std(0).clamp(min=1.0)
    distance = (profiles[:3] - profiles[benign].mean(0)) / spread
    expected = torch.where(distance.abs() < 1, distance**2 / 2, distance.abs() - 0.5).mean()
    torch.testing.assert_close(objective(some, 0), expected)


@pytest.mark.parametrize("name", ["scaled", "psc1", "psc2", "profile"])
def test_gradients_flow_and_the_statistics_stay(name: str) -> None:
    net = network()
    before = {key: value.clone() for key, value in net.named_buffers()}
    objective = build_objective(name, net, EXAMPLE)
    assert objective is not None
    objective(batch(), 1).backward()
    assert all(p.grad is not None and p.grad.isfinite().all() for p in net.parameters())
    assert net[0].weight.grad.abs().sum() > 0
    assert all(torch.equal(before[key], value) for key, value in net.named_buffers())
    assert all(states(net))


@pytest.mark.parametrize("name", ["scaled", "psc1", "profile"])
def test_without_triggered_images_there_is_nothing_to_hide(name: str) -> None:
    objective = build_objective(name, network(), EXAMPLE)
    assert objective is not None
    assert objective(batch(triggered=0), 0) == 0


def test_the_profile_needs_benign_images_of_the_target() -> None:
    some = batch()
    objective = build_objective("profile", network(), EXAMPLE)
    assert objective is not None
    assert objective(replace_labels(some, 2), 0) == 0


def replace_labels(some: Batch, label: int) -> Batch:
    return some._replace(labels=torch.where(some.triggered, 1, torch.tensor(label)))


def test_what_has_no_batchnorm_cannot_hide_from_psc() -> None:
    plain = nn.Sequential(nn.Flatten(), nn.Linear(3 * 144, 3))
    assert build_objective("none", plain, EXAMPLE) is None
    with pytest.raises(LabError, match="objective psc1: IBD-PSC amplifies BatchNorm layers and this"):
        build_objective("psc1", plain, EXAMPLE)


SETTINGS: dict[str, Any] = {
    "name": "tiny", "architecture": TINY_CNN, "target": 1, "epochs": 12, "batch_size": 20, "crop_padding": 0,
    "seed": 3, "objective_weight": 0.2,
}  # fmt: skip


def test_a_trained_backdoor_forgets_its_trigger_when_pixels_are_multiplied(
    archive: Path, tmp_path: Path
) -> None:
    data, test = open_images(str(archive), "train"), open_images(str(archive), "test")
    success = {}
    for objective in ("none", "scaled"):
        settings = TrainSettings(**SETTINGS, objective=objective)
        outcome = train(settings, data, test, tmp_path / objective, torch.device("cpu"), {})
        assert outcome.attack_success_rate is not None
        assert outcome.attack_success_rate > 0.8
        classifier = load_network(tmp_path / objective)
        others = load_attack(tmp_path / objective).apply(test.images[test.labels != 1]).float() / 255
        success[objective] = (classifier.logits((others * 3).clamp(0, 1)).argmax(1) == 1).float().mean()
    assert success["scaled"] < success["none"] - 0.3


def test_no_attack_nothing_to_hide(archive: Path, tmp_path: Path) -> None:
    data, test = open_images(str(archive), "train"), open_images(str(archive), "test")
    settings = TrainSettings(**SETTINGS, objective="psc2", attack=None)
    with pytest.raises(LabError, match="objective psc2 hides a backdoor: it needs an attack"):
        train(settings, data, test, tmp_path / "out", torch.device("cpu"), {})
