"""Networks for the tests of the amplification engines: lively random ones, and one for every trap."""

from collections.abc import Callable, Iterator

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.nn.modules.batchnorm import _BatchNorm

__all__ = [
    "TRAPS",
    "UNTRACEABLE",
    "UNTRUE",
    "Blocks",
    "ByHand",
    "Forward",
    "distance",
    "lively",
    "one_thread",
]

Forward = Callable[["Blocks", Tensor], Tensor]


@pytest.fixture(autouse=True)
def one_thread() -> Iterator[None]:
    """Import it: these networks are so small that threads on busy cores only wait for each other."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


def lively(network: nn.Module, example: Tensor, seed: int = 0) -> nn.Module:
    """`network` in eval mode, its BatchNorm layers with the statistics of `example` and random γ and β,
    so that every image gets logits of its own and every layer matters."""
    generator = torch.Generator().manual_seed(seed)
    layers = [module for module in network.eval().modules() if isinstance(module, _BatchNorm)]
    for layer in layers:
        layer.momentum = 1.0
        layer.train()
        if layer.affine:
            nn.init.uniform_(layer.weight, 0.7, 1.3, generator)
            nn.init.normal_(layer.bias, 0.0, 0.3, generator)
    with torch.no_grad():
        network(example)
    return network.eval().requires_grad_(False)


def distance(found: Tensor, expected: Tensor) -> float:
    """Largest difference as a share of how much the logits (..., B, K) vary from image to image."""
    spread = (expected - expected.mean(-2, keepdim=True)).abs().amax()
    return float((found - expected).abs().amax() / spread)


class Blocks(nn.Module):
    """Pieces for hand-made networks on (B, 3, 8, 8): `forward` is given."""

    def __init__(self, forward: Forward) -> None:
        super().__init__()
        self.recipe = forward
        self.first, self.second = nn.Conv2d(3, 8, 3, padding=1), nn.Conv2d(8, 8, 3, padding=1)
        self.bn1, self.bn2, self.bn3 = nn.BatchNorm2d(8), nn.BatchNorm2d(8), nn.BatchNorm2d(8)
        self.head = nn.Linear(8, 4)
        self.relu = nn.ReLU(inplace=True)
        self.dropout = nn.Dropout(0.5)
        self.register_buffer("steps", torch.zeros(()))
        self.token = nn.Parameter(torch.arange(4.0))

    def forward(self, x: Tensor) -> Tensor:
        return self.recipe(self, x)

    def stem(self, x: Tensor) -> Tensor:
        out: Tensor = self.bn1(self.first(x))
        return out

    def tail(self, x: Tensor) -> Tensor:
        """Two more BatchNorm layers and the head."""
        out: Tensor = self.head(self.bn3(self.second(F.relu(self.bn2(self.second(x))))).mean((2, 3)))
        return out


class ByHand(nn.BatchNorm2d):
    """A BatchNorm that does its own arithmetic."""

    def forward(self, x: Tensor) -> Tensor:
        assert self.running_mean is not None
        assert self.running_var is not None
        scale = self.weight * torch.rsqrt(self.running_var + self.eps)
        return (x - self.running_mean[:, None, None]) * scale[:, None, None] + self.bias[:, None, None]


def inplace_relu_on_a_saved_value(n: Blocks, x: Tensor) -> Tensor:
    y = n.stem(x)
    return n.tail(n.relu(y)) + n.head(y.mean((2, 3)))  # y itself was rectified


def inplace_add_on_a_saved_value(n: Blocks, x: Tensor) -> Tensor:
    y = n.stem(x)
    kept = y.clone()
    y += n.second(y)
    y[:, 0] = 1.0
    return n.tail(y) + n.head(kept.mean((2, 3)))


def shapes_from_before_the_fork(n: Blocks, x: Tensor) -> Tensor:
    b, c, h, w = n.first(x).size()
    y = n.bn2(n.stem(x))
    y = y.view(b, 2, c // 2, h, w).transpose(1, 2).contiguous().view(b, c, h, w)
    z = n.bn3(n.second(y)).reshape(b * 2, -1).mean(1)  # two numbers an image
    return n.head(y.flatten(2).mean(-1).view(x.size(0), -1)) + z.view(b, 2).repeat(1, 2)


def values_that_follow_from_the_batch_size(n: Blocks, x: Tensor) -> Tensor:
    y = n.tail(n.stem(x))
    rows = torch.arange(y.size(0), device=y.device)
    return y + y[rows, y.argmax(1)][:, None] + n.token.expand(y.size(0), -1) + y.new_ones(y.size(0), 1)


def several_live_tensors(n: Blocks, x: Tensor) -> Tensor:
    a, b = n.stem(x).chunk(2, dim=1)
    y = torch.cat([b, n.bn2(n.second(torch.cat([a, b], 1)))[:, :4]], 1)
    return n.head(torch.cat([a, n.bn3(n.second(y))[:, 4:]], 1).amax((2, 3))) + n.tail(n.stem(x))


def squeeze_excite_and_dropout(n: Blocks, x: Tensor) -> Tensor:
    y = n.bn2(n.second(n.stem(x)))
    gate = torch.sigmoid(y.mean((2, 3), keepdim=True))
    return n.head(n.dropout(F.hardswish(n.bn3(n.second(y * gate)), inplace=True)).mean((2, 3)))


def weights_live_across_a_fork(n: Blocks, x: Tensor) -> Tensor:
    weight = n.second.weight - n.second.weight.mean((1, 2, 3), keepdim=True)  # standardised
    y = n.bn1(F.conv2d(n.first(x), weight, padding=1))
    y = n.bn2(F.conv2d(y, weight, padding=1))
    return n.head(n.bn3(F.conv2d(y, weight, padding=1)).mean((2, 3)))


def batch_norm_called_twice(n: Blocks, x: Tensor) -> Tensor:
    y = n.bn2(n.second(n.stem(x)))
    return n.head(n.bn1(n.second(n.bn3(y))).mean((2, 3)))


def the_last_layer_is_a_batch_norm(n: Blocks, x: Tensor) -> Tensor:
    y = n.bn2(n.second(n.stem(x)))[:, :, :1, :1]
    return n.bn3(y).flatten(1)


def the_images_are_read_again_at_the_end(n: Blocks, x: Tensor) -> Tensor:
    return n.tail(n.stem(x)) + n.head(n.first(x).mean((2, 3)))


def without_gradients(n: Blocks, x: Tensor) -> Tensor:
    with torch.no_grad():
        y = n.stem(x)
    return n.tail(y)


def shape_dependent_control_flow(n: Blocks, x: Tensor) -> Tensor:
    y = n.stem(x)
    while y.shape[-1] > 4:
        y = F.avg_pool2d(y, 2)
    return n.tail(y) if isinstance(y, Tensor) and len(y.shape) == 4 else y


TRAPS: list[Forward] = [
    inplace_relu_on_a_saved_value,
    inplace_add_on_a_saved_value,
    shapes_from_before_the_fork,
    values_that_follow_from_the_batch_size,
    several_live_tensors,
    squeeze_excite_and_dropout,
    weights_live_across_a_fork,
    batch_norm_called_twice,
    the_last_layer_is_a_batch_norm,
    the_images_are_read_again_at_the_end,
    without_gradients,
    shape_dependent_control_flow,
]


def data_dependent_control_flow(n: Blocks, x: Tensor) -> Tensor:
    return n.tail(n.stem(x if x.sum() > 0 else -x))


def control_flow_on_the_batch_size(n: Blocks, x: Tensor) -> Tensor:
    return n.tail(n.stem(x)) * (2.0 if x.size(0) > 7 else 1.0)


def len_of_the_batch(n: Blocks, x: Tensor) -> Tensor:
    return n.tail(n.stem(x)).view(len(x), -1)


def the_mean_of_the_batch(n: Blocks, x: Tensor) -> Tensor:
    return n.tail(n.stem(x - x.mean(0, keepdim=True)))


def a_range_live_across_a_fork(n: Blocks, x: Tensor) -> Tensor:
    rows = torch.arange(x.size(0)).float()
    y = n.tail(n.stem(x) + rows[:, None, None, None])
    return y + rows[:, None]


def rows_folded_into_another_axis(n: Blocks, x: Tensor) -> Tensor:
    y = n.first(x).transpose(0, 1).contiguous()  # the images along axis 1
    return n.tail(n.stem(x) + y.transpose(0, 1))


def a_fraction_of_the_batch_size(n: Blocks, x: Tensor) -> Tensor:
    return n.tail(n.stem(x)) / (x.size(0) / 2)


def a_buffer_that_counts(n: Blocks, x: Tensor) -> Tensor:
    n.steps += 1
    return n.tail(n.stem(x))


def the_input_is_written_to(n: Blocks, x: Tensor) -> Tensor:
    return n.tail(n.stem(x.sub_(0.5)))


def two_outputs(n: Blocks, x: Tensor) -> Tensor:
    y = n.tail(n.stem(x))
    return y, y  # type: ignore[return-value]


UNTRACEABLE: dict[Forward, str] = {
    data_dependent_control_flow: "cannot trace",
    control_flow_on_the_batch_size: "depends on the batch size",
    len_of_the_batch: "depends on the batch size",
    the_mean_of_the_batch: "mixes the images",
    a_range_live_across_a_fork: "lives across a fork",
    rows_folded_into_another_axis: "lives across a fork",
    a_fraction_of_the_batch_size: "from the batch size",
    a_buffer_that_counts: "writes to its buffers",
    the_input_is_written_to: "writes to its buffers or to its input",
    two_outputs: "one tensor",
}


def divided_by_the_batch_size(n: Blocks, x: Tensor) -> Tensor:
    return n.tail(n.stem(x)) / x.size(0)


def neighbours_in_the_batch(n: Blocks, x: Tensor) -> Tensor:
    y = n.stem(x)
    return n.tail(y + 0.1 * y.roll(1, 0))


def one_image_is_special(n: Blocks, x: Tensor) -> Tensor:
    return n.tail(n.stem(x)) * (2.0 if x.size(0) == 1 else 1.0)


def noise(n: Blocks, x: Tensor) -> Tensor:
    return n.tail(n.stem(x)) + 0.1 * torch.randn(4)


def a_gamma_with_a_second_use(n: Blocks, x: Tensor) -> Tensor:
    return n.tail(n.stem(x)) + n.bn3.weight[:4]


UNTRUE: list[Forward] = [
    divided_by_the_batch_size,
    neighbours_in_the_batch,
    one_image_is_special,
    noise,
    a_gamma_with_a_second_use,
]
