"""Small networks for small images, by the names a bundle uses (`zoo:NAME`).

Each builder takes `num_classes` and `channels` and returns a network that maps *normalised* images
(B, channels, H, W) to logits (B, num_classes). Weights are randomly initialised.
"""

from collections.abc import Callable

import torch
from torch import Tensor, nn
from torch.nn import functional as F

__all__ = ["ZOO", "badnets_cnn", "mobilenetv2", "preactresnet18", "resnet18", "resnet20", "vgg16_bn"]


def conv3x3(inputs: int, outputs: int, stride: int = 1) -> nn.Conv2d:
    return nn.Conv2d(inputs, outputs, 3, stride=stride, padding=1, bias=False)


class BasicBlock(nn.Module):
    """Two 3×3 convolutions and a shortcut (He et al., CVPR 2016, figure 2)."""

    def __init__(self, inputs: int, outputs: int, stride: int) -> None:
        super().__init__()
        self.conv1 = conv3x3(inputs, outputs, stride)
        self.bn1 = nn.BatchNorm2d(outputs)
        self.conv2 = conv3x3(outputs, outputs)
        self.bn2 = nn.BatchNorm2d(outputs)
        self.shortcut = nn.Sequential()
        if stride != 1 or inputs != outputs:
            self.shortcut = nn.Sequential(
                nn.Conv2d(inputs, outputs, 1, stride=stride, bias=False), nn.BatchNorm2d(outputs)
            )

    def forward(self, x: Tensor) -> Tensor:
        out = F.relu(self.bn1(self.conv1(x)))
        out = self.bn2(self.conv2(out)) + self.shortcut(x)
        return F.relu(out)


class PreActBlock(nn.Module):
    """BatchNorm and ReLU before each convolution (He et al., ECCV 2016)."""

    def __init__(self, inputs: int, outputs: int, stride: int) -> None:
        super().__init__()
        self.bn1 = nn.BatchNorm2d(inputs)
        self.conv1 = conv3x3(inputs, outputs, stride)
        self.bn2 = nn.BatchNorm2d(outputs)
        self.conv2 = conv3x3(outputs, outputs)
        self.shortcut: nn.Module | None = None
        if stride != 1 or inputs != outputs:
            self.shortcut = nn.Conv2d(inputs, outputs, 1, stride=stride, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        out = F.relu(self.bn1(x))
        shortcut = x if self.shortcut is None else self.shortcut(out)
        out = self.conv2(F.relu(self.bn2(self.conv1(out))))
        total: Tensor = out + shortcut
        return total


class SmallResNet(nn.Module):
    """A residual network for 32×32 images: a 3×3 stem, stages that halve the side, global pooling."""

    def __init__(
        self, block: type[nn.Module], stem: nn.Module, widths: list[int], blocks: int, head: nn.Module
    ) -> None:
        super().__init__()
        self.stem = stem
        stages: list[nn.Module] = []
        inputs = widths[0]
        for stage, width in enumerate(widths):
            for index in range(blocks):
                stride = 2 if stage > 0 and index == 0 else 1
                stages.append(block(inputs, width, stride))
                inputs = width
        self.blocks = nn.Sequential(*stages)
        self.head = head

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = self.head(self.blocks(self.stem(x)))
        return out


def pooled_linear(width: int, num_classes: int) -> list[nn.Module]:
    return [nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(width, num_classes)]


def resnet20(num_classes: int = 10, channels: int = 3) -> nn.Module:
    """ResNet-20 for CIFAR: 3 stages of 3 blocks, 16-32-64 channels, 0.27 M parameters."""
    stem = nn.Sequential(conv3x3(channels, 16), nn.BatchNorm2d(16), nn.ReLU())
    head = nn.Sequential(*pooled_linear(64, num_classes))
    return SmallResNet(BasicBlock, stem, [16, 32, 64], 3, head)


def resnet18(num_classes: int = 10, channels: int = 3) -> nn.Module:
    """ResNet-18 with the CIFAR stem: 4 stages of 2 blocks, 64-512 channels, 11.2 M parameters."""
    stem = nn.Sequential(conv3x3(channels, 64), nn.BatchNorm2d(64), nn.ReLU())
    head = nn.Sequential(*pooled_linear(512, num_classes))
    return SmallResNet(BasicBlock, stem, [64, 128, 256, 512], 2, head)


def preactresnet18(num_classes: int = 10, channels: int = 3) -> nn.Module:
    """PreActResNet-18 with the CIFAR stem; the last BatchNorm stands before the pooling."""
    head = nn.Sequential(nn.BatchNorm2d(512), nn.ReLU(), *pooled_linear(512, num_classes))
    return SmallResNet(PreActBlock, conv3x3(channels, 64), [64, 128, 256, 512], 2, head)


def vgg16_bn(num_classes: int = 10, channels: int = 3) -> nn.Module:
    """VGG-16 with BatchNorm and one linear layer instead of three (Simonyan & Zisserman, ICLR 2015).

    Odd sides round up when halved, which changes nothing at 32×32 and admits 28×28.
    """
    layers: list[nn.Module] = []
    inputs = channels
    for width, repeats in [(64, 2), (128, 2), (256, 3), (512, 3), (512, 3)]:
        for _ in range(repeats):
            layers += [conv3x3(inputs, width), nn.BatchNorm2d(width), nn.ReLU(inplace=True)]
            inputs = width
        layers.append(nn.MaxPool2d(2, ceil_mode=True))
    return nn.Sequential(*layers, *pooled_linear(512, num_classes))


class InvertedResidual(nn.Module):
    """Expand, depthwise 3×3, project (Sandler et al., CVPR 2018, figure 3)."""

    def __init__(self, inputs: int, outputs: int, stride: int, expansion: int) -> None:
        super().__init__()
        hidden = inputs * expansion
        layers: list[nn.Module] = []
        if expansion != 1:
            layers += [nn.Conv2d(inputs, hidden, 1, bias=False), nn.BatchNorm2d(hidden), nn.ReLU6()]
        layers += [
            nn.Conv2d(hidden, hidden, 3, stride, padding=1, groups=hidden, bias=False),
            nn.BatchNorm2d(hidden),
            nn.ReLU6(),
            nn.Conv2d(hidden, outputs, 1, bias=False),
            nn.BatchNorm2d(outputs),
        ]
        self.layers = nn.Sequential(*layers)
        self.residual = stride == 1 and inputs == outputs

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = self.layers(x)
        return x + out if self.residual else out


def mobilenetv2(num_classes: int = 10, channels: int = 3) -> nn.Module:
    """MobileNetV2 for 32×32 images: the first two reductions of the original are left out."""
    layers: list[nn.Module] = [conv3x3(channels, 32), nn.BatchNorm2d(32), nn.ReLU6()]
    inputs = 32
    # (expansion, channels, blocks, stride) of table 2 of the paper, strides adapted to 32×32.
    rows = [(1, 16, 1, 1), (6, 24, 2, 1), (6, 32, 3, 2), (6, 64, 4, 2), (6, 96, 3, 1), (6, 160, 3, 2)]
    for expansion, width, blocks, stride in [*rows, (6, 320, 1, 1)]:
        for index in range(blocks):
            layers.append(InvertedResidual(inputs, width, stride if index == 0 else 1, expansion))
            inputs = width
    layers += [nn.Conv2d(inputs, 1280, 1, bias=False), nn.BatchNorm2d(1280), nn.ReLU6()]
    return nn.Sequential(*layers, *pooled_linear(1280, num_classes))


class BadNetsCNN(nn.Module):
    """The MNIST network of BadNets (Gu et al., 2017, table I): two convolutions, no BatchNorm.

    The hidden size of the first linear layer follows from the image: 512 values at 28×28.
    """

    def __init__(self, num_classes: int, channels: int, size: int) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(channels, 16, 5)
        self.conv2 = nn.Conv2d(16, 32, 5)
        side = ((size - 4) // 2 - 4) // 2
        if side < 1:
            raise ValueError(f"two 5×5 convolutions and poolings need images of at least 16×16, not {size}")
        self.fc1 = nn.Linear(32 * side * side, 512)
        self.fc2 = nn.Linear(512, num_classes)

    def forward(self, x: Tensor) -> Tensor:
        x = F.avg_pool2d(F.relu(self.conv1(x)), 2)
        x = F.avg_pool2d(F.relu(self.conv2(x)), 2)
        x = F.relu(self.fc1(torch.flatten(x, 1)))
        out: Tensor = self.fc2(x)
        return out


def badnets_cnn(num_classes: int = 10, channels: int = 1, size: int = 28) -> nn.Module:
    """The BadNets paper's CNN for `size`×`size` images; it has no BatchNorm, so IBD-PSC cannot guard it."""
    return BadNetsCNN(num_classes, channels, size)


ZOO: dict[str, Callable[..., nn.Module]] = {
    builder.__name__: builder
    for builder in (resnet20, resnet18, preactresnet18, mobilenetv2, vgg16_bn, badnets_cnn)
}
