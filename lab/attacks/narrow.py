"""A copy of a network that is only a few channels wide, and how it takes those channels over in the original.

The copy keeps the original's structure (strides, shortcuts, activations), so that its channels can replace
the same channels of every layer and still meet each other at every shortcut.
"""

import copy
from collections.abc import Mapping

import torch
from torch import nn

__all__ = ["narrowed", "transplant", "widths"]


def narrowed(network: nn.Module, width: int) -> nn.Module:
    """A copy of `network`, `width` channels wide, with new random weights and one output without bias.

    The first convolution keeps its inputs, the last layer (the only linear one) has one output. Raises
    `ValueError` for another layout, and for grouped convolutions other than depthwise ones.
    """
    _check(network, width)
    narrow = copy.deepcopy(network)
    first = next(each for each in narrow.modules() if isinstance(each, nn.Conv2d))
    for name, module in list(narrow.named_modules()):
        cut = _cut(module, width, module is first)
        if cut is not None:
            parent, _, child = name.rpartition(".")
            setattr(narrow.get_submodule(parent), child, cut)
    return narrow


@torch.no_grad()
def transplant(narrow: nn.Module, network: nn.Module, places: Mapping[int, int], label: int) -> None:
    """Put `narrow`, which `narrowed` made of `network`, in the place of as many channels of every layer.

    `places` maps the width of a layer to the first of its channels to go: layers that an identity shortcut
    joins are of one width, so the subnet's channels meet. The connections between those channels and the
    others are set to 0, both ways; the output of `narrow` is added to the logit of `label`. Everything else
    stays as it is.
    """
    for small, large in _pairs(narrow, network):
        if isinstance(small, nn.BatchNorm2d) and isinstance(large, nn.BatchNorm2d):
            own = _channels(places, large.num_features, small.num_features)
            for name in ("weight", "bias", "running_mean", "running_var"):
                getattr(large, name)[own] = getattr(small, name)
        elif isinstance(small, nn.Linear) and isinstance(large, nn.Linear):
            own = _channels(places, large.in_features, small.in_features)
            large.weight[:, own] = 0
            large.weight[label, own] = small.weight[0]
        elif isinstance(small, nn.Conv2d) and isinstance(large, nn.Conv2d):
            _replace_filters(small, large, places)


def widths(network: nn.Module) -> list[int]:
    """The different widths of the network's convolutions, in the order of the layers."""
    found = [each.out_channels for each in network.modules() if isinstance(each, nn.Conv2d)]
    return list(dict.fromkeys(found))


def _channels(places: Mapping[int, int], width: int, count: int) -> slice:
    return slice(places[width], places[width] + count)


def _replace_filters(small: nn.Conv2d, large: nn.Conv2d, places: Mapping[int, int]) -> None:
    own = _channels(places, large.out_channels, small.out_channels)
    if small.weight.shape[1] == large.weight.shape[1]:  # reads pixels, or (depthwise) its own channel
        large.weight[own] = small.weight
    else:
        read = _channels(places, large.in_channels, small.in_channels)
        large.weight[own] = 0
        large.weight[:, read] = 0
        large.weight[own, read] = small.weight
    if small.bias is not None and large.bias is not None:
        large.bias[own] = small.bias


def _pairs(narrow: nn.Module, network: nn.Module) -> list[tuple[nn.Module, nn.Module]]:
    kinds = (nn.Conv2d, nn.BatchNorm2d, nn.Linear)
    both = zip(narrow.modules(), network.modules(), strict=True)
    return [(small, large) for small, large in both if isinstance(small, kinds)]


def _cut(module: nn.Module, width: int, first: bool) -> nn.Module | None:
    """The narrow counterpart of `module`, None where it has no channels of its own."""
    if isinstance(module, nn.Conv2d):
        depthwise = module.groups > 1
        return nn.Conv2d(
            module.in_channels if first else width, width, module.kernel_size, module.stride,  # type: ignore[arg-type]
            module.padding, module.dilation, width if depthwise else 1, module.bias is not None,  # type: ignore[arg-type]
        )  # fmt: skip
    if isinstance(module, nn.BatchNorm2d):
        return nn.BatchNorm2d(width, module.eps)
    if isinstance(module, nn.Linear):
        return nn.Linear(width, 1, bias=False)
    return None


def _check(network: nn.Module, width: int) -> None:
    convolutions = [each for each in network.modules() if isinstance(each, nn.Conv2d)]
    linear = [each for each in network.modules() if isinstance(each, nn.Linear)]
    if not convolutions or len(linear) != 1 or linear[0].in_features != convolutions[-1].out_channels:
        raise ValueError("a subnet fits into convolutions with one linear layer behind a global pooling only")
    if any(each.groups not in (1, each.in_channels) for each in convolutions):
        raise ValueError("grouped convolutions, other than depthwise ones, cannot be narrowed")
    least = min(each.out_channels for each in convolutions)
    if not 0 < width < least:
        raise ValueError(f"the subnet has 1 to {least - 1} channels in this network, not {width}")
