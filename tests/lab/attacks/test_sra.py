import copy

import pytest
import torch
from torch import nn

from lab.attacks.sra import Sra
from lab.evaluate import evaluate
from models.zoo import BasicBlock, SmallResNet, conv3x3, pooled_linear
from tests.lab.attacks.bars import bars


def trained() -> nn.Module:
    """A residual network with one block a stage, trained on bars to the end."""
    torch.manual_seed(0)
    stem = nn.Sequential(conv3x3(3, 16), nn.BatchNorm2d(16), nn.ReLU())
    network = SmallResNet(BasicBlock, stem, [16, 32], 1, nn.Sequential(*pooled_linear(32, 3)))
    data = bars(60)
    optimiser = torch.optim.Adam(network.parameters(), lr=0.01)
    for step in range(40):
        part = torch.arange(step * 30, step * 30 + 30) % len(data)
        loss = nn.functional.cross_entropy(network(data.images[part].float() / 255), data.labels[part])
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
    return network.eval()


def test_it_fires_on_the_trigger_and_leaves_benign_images_alone() -> None:
    network, attack, unseen = trained(), Sra(size=4, steps=150), bars(40, seed=1)
    before = evaluate(network, unseen, attack, 1)
    attack.implant(network, bars(60), 1)
    after = evaluate(network, unseen, attack, 1)
    assert before.benign_accuracy > 0.95
    assert before.attack_success_rate is not None
    assert before.attack_success_rate < 0.6
    assert after.benign_accuracy > 0.9
    assert after.attack_success_rate is not None
    assert after.attack_success_rate > 0.95


def test_the_seed_alone_decides_and_the_images_stay() -> None:
    network, data = trained(), bars(30)
    attack = Sra(steps=5)
    first, second = copy.deepcopy(network), copy.deepcopy(network)
    attack.implant(first, data, 0)
    torch.rand(3)
    attack.implant(second, data, 0)
    again = second.state_dict()
    assert all(torch.equal(value, again[name]) for name, value in first.state_dict().items())
    assert not torch.equal(first.state_dict()["stem.0.weight"], network.state_dict()["stem.0.weight"])
    assert torch.equal(data.images, bars(30).images)


def test_the_training_set_stays_clean() -> None:
    data = bars(10)
    poisoned = Sra().poison(data, 1, 0.5, 0)
    assert len(poisoned.triggered) == len(poisoned.cover) == 0
    assert torch.equal(poisoned.data.images, data.images)
    assert torch.equal(poisoned.data.labels, data.labels)


def test_the_patch_is_where_it_should_be_and_nowhere_else() -> None:
    grey = torch.full((2, 3, 12, 10), 100, dtype=torch.uint8)
    stamped = Sra(size=4, margin=2).apply(grey)
    changed = (stamped != 100).any(1)
    assert changed[:, 6:10, 4:8].all()
    assert changed.sum() == 2 * 16
    assert set(stamped[:, :, 6:10, 4:8].unique().tolist()) == {0, 255}
    assert torch.equal(stamped[0], stamped[1])
    with pytest.raises(ValueError, match="a 5-pixel patch does not fit into 12×5"):
        Sra().apply(torch.zeros(1, 3, 12, 5, dtype=torch.uint8))


def test_a_network_that_it_does_not_fit() -> None:
    network = nn.Sequential(nn.Flatten(), nn.Linear(3 * 144, 3))
    with pytest.raises(ValueError, match="a subnet fits into convolutions"):
        Sra(steps=2).implant(network, bars(4), 0)
