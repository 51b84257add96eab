import pytest
import torch
from torch import nn
from torchvision import models as torchvision_models

from models.zoo import ZOO, badnets_cnn, mobilenetv2


def parameters(network: nn.Module) -> int:
    return sum(p.numel() for p in network.parameters())


def batch_norms(network: nn.Module) -> int:
    return sum(isinstance(m, nn.BatchNorm2d) for m in network.modules())


# Counts for ten classes and three channels. ResNet-20 with projection shortcuts ("option B"), ResNet-18,
# PreActResNet-18 and VGG-16-BN are those of the widely used CIFAR implementations, the VGG's less the
# 4224 convolution biases that BatchNorm makes void, the PreActResNet's with the last BatchNorm that He et
# al. put before the pooling and that implementation leaves out.
@pytest.mark.parametrize(
    ("name", "count", "norms"),
    [
        ("resnet20", 272_474, 1 + 2 * 9 + 2),
        ("resnet18", 11_173_962, 1 + 2 * 8 + 3),
        ("preactresnet18", 11_171_146 + 2 * 512, 2 * 8 + 1),
        ("mobilenetv2", 2_236_682, 1 + 2 + 3 * 16 + 1),
        ("vgg16_bn", 14_728_266 - 4224, 13),
    ],
)
def test_size_is_that_of_the_literature(name: str, count: int, norms: int) -> None:
    network = ZOO[name](num_classes=10, channels=3)
    assert parameters(network) == count
    assert batch_norms(network) == norms


def test_badnets_cnn_is_table_one_of_the_paper() -> None:
    network = badnets_cnn()
    convolutions = (16 * 25 + 16) + (32 * 16 * 25 + 32)
    assert parameters(network) == convolutions + (32 * 4 * 4 * 512 + 512) + (512 * 10 + 10)
    assert batch_norms(network) == 0


def test_mobilenetv2_differs_from_torchvisions_in_strides_only() -> None:
    assert parameters(mobilenetv2(10)) == parameters(torchvision_models.mobilenet_v2(num_classes=10))


@pytest.mark.parametrize(("channels", "size"), [(3, 32), (1, 28)])
@pytest.mark.parametrize("name", sorted(ZOO))
def test_logits_per_image(name: str, channels: int, size: int) -> None:
    extra = {"size": size} if name == "badnets_cnn" else {}
    torch.manual_seed(0)
    network = ZOO[name](num_classes=7, channels=channels, **extra).eval()
    images = torch.rand(2, channels, size, size)
    with torch.inference_mode():
        both, first = network(images), network(images[:1])
    assert both.shape == (2, 7)
    assert not torch.equal(both[0], both[1])
    torch.testing.assert_close(both[:1], first, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize(
    ("name", "side"), [("resnet20", 8), ("resnet18", 4), ("preactresnet18", 4), ("mobilenetv2", 4)]
)
def test_resolution_before_pooling_at_32(name: str, side: int) -> None:
    network = ZOO[name]().eval()
    seen: list[torch.Size] = []
    pool = next(m for m in network.modules() if isinstance(m, nn.AdaptiveAvgPool2d))
    pool.register_forward_hook(lambda _module, inputs, _output: seen.append(inputs[0].shape))
    with torch.inference_mode():
        network(torch.zeros(1, 3, 32, 32))
    assert seen[0][-2:] == (side, side)


def test_badnets_cnn_refuses_images_too_small_for_it() -> None:
    badnets_cnn(size=16)
    with pytest.raises(ValueError, match="at least 16×16, not 15"):
        badnets_cnn(size=15)
