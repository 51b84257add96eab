"""A small U-Net (Ronneberger et al., MICCAI 2015): images to images of the same size."""

import torch
from torch import Tensor, nn
from torch.nn import functional as F

__all__ = ["UNet"]


class UNet(nn.Module):
    """(B, `inputs`, H, W) → (B, `outputs`, H, W), unbounded; the side is halved twice, H and W are any."""

    def __init__(self, inputs: int, outputs: int, width: int = 16) -> None:
        super().__init__()
        self.top = _convolved(inputs, width)
        self.down1 = _convolved(width, 2 * width, stride=2)
        self.down2 = _convolved(2 * width, 4 * width, stride=2)
        self.up1 = _convolved(6 * width, 2 * width)
        self.up2 = _convolved(3 * width, width)
        self.out = nn.Conv2d(width, outputs, 1)

    def forward(self, x: Tensor) -> Tensor:
        top = self.top(x)
        middle = self.down1(top)
        rising = self.up1(_joined(self.down2(middle), middle))
        rising = self.up2(_joined(rising, top))
        out: Tensor = self.out(rising)
        return out


def _convolved(inputs: int, outputs: int, stride: int = 1) -> nn.Sequential:
    convolution = nn.Conv2d(inputs, outputs, 3, stride=stride, padding=1, bias=False)
    return nn.Sequential(convolution, nn.BatchNorm2d(outputs), nn.ReLU())


def _joined(low: Tensor, skip: Tensor) -> Tensor:
    return torch.cat([F.interpolate(low, skip.shape[-2:]), skip], 1)
