import copy

import pytest
import torch
from torch import Tensor, nn

from lab.attacks.narrow import narrowed, transplant, widths
from models.zoo import ZOO

GLOBALLY_POOLED = ["resnet20", "resnet18", "preactresnet18", "mobilenetv2", "vgg16_bn"]


def settled(network: nn.Module) -> nn.Module:
    """`network` in eval mode, its BatchNorms with statistics and weights that are not the usual 0 and 1."""
    for module in network.modules():
        if isinstance(module, nn.BatchNorm2d):
            nn.init.uniform_(module.weight, 0.5, 1.5)
            nn.init.uniform_(module.bias, -0.2, 0.3)
            nn.init.uniform_(module.running_mean, -0.2, 0.2)  # type: ignore[arg-type]
            nn.init.uniform_(module.running_var, 0.5, 1.5)  # type: ignore[arg-type]
    return network.eval()


def without(network: nn.Module, places: dict[int, int], count: int) -> nn.Module:
    """`network` with those channels silent: an independent way to see what the others still answer."""
    silent = copy.deepcopy(network)
    for module in silent.modules():
        if isinstance(module, nn.BatchNorm2d):
            at = places[module.num_features]
            module.weight.data[at : at + count] = 0
            module.bias.data[at : at + count] = 0
    return silent


@pytest.mark.parametrize("name", GLOBALLY_POOLED)
@pytest.mark.parametrize("width", [1, 2])
@torch.no_grad()
def test_the_logits_are_those_of_the_rest_plus_the_subnets(name: str, width: int) -> None:
    """Stream and subnet run side by side and do not hear each other, through every kind of shortcut."""
    torch.manual_seed(0)
    network = settled(ZOO[name](num_classes=4, channels=3)).double()
    narrow = settled(narrowed(network, width).double())
    pixels = torch.rand(3, 3, 16, 16, dtype=torch.double)
    places = {each: (5 * index) % (each - width) for index, each in enumerate(widths(network))}
    wanted = without(network, places, width)(pixels)
    wanted[:, 2] += narrow(pixels)[:, 0]
    transplant(narrow, network, places, 2)
    assert narrow(pixels).shape == (3, 1)
    torch.testing.assert_close(network(pixels), wanted, rtol=1e-9, atol=1e-9)


def test_a_layout_that_it_does_not_fit() -> None:
    with pytest.raises(ValueError, match="one linear layer behind a global pooling"):
        narrowed(ZOO["badnets_cnn"](10, 1, 28), 1)
    with pytest.raises(ValueError, match="has 1 to 15 channels in this network, not 16"):
        narrowed(ZOO["resnet20"](10), 16)
    grouped = nn.Sequential(
        nn.Conv2d(4, 8, 3, groups=2), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(8, 2)
    )
    with pytest.raises(ValueError, match="grouped convolutions"):
        narrowed(grouped, 1)


def test_the_copy_shares_nothing_with_the_original() -> None:
    network = ZOO["resnet20"](10)
    before: dict[str, Tensor] = {name: value.clone() for name, value in network.state_dict().items()}
    narrow = narrowed(network, 2)
    assert sum(weight.numel() for weight in narrow.parameters()) < 1000
    for weight in narrow.parameters():
        nn.init.zeros_(weight)
    assert all(torch.equal(before[name], value) for name, value in network.state_dict().items())
