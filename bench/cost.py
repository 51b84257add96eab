"""Costs that do not depend on the clock: multiply-adds, and bytes of weights."""

from collections.abc import Callable, Iterator
from typing import Any

import torch
from torch import Tensor, fx, nn
from torch.utils.flop_counter import FlopCounterMode

__all__ = ["flops_per_image", "resident_bytes", "tensors_in"]


def flops_per_image(call: Callable[[Tensor], Any], images: Tensor, batch: int = 25) -> float:
    """Mean multiply-adds (counted twice, as usual) of `call` on `images` (N, C, H, W), exact.

    Convolutions and matrix products are counted as they are executed, so early exit counts what it ran.
    """
    with FlopCounterMode(display=False) as counter:
        for part in images.split(batch):
            call(part)
    return float(counter.get_total_flops()) / len(images)


def resident_bytes(holder: Any) -> int:
    """Bytes of the distinct storages of all tensors that `holder` owns."""
    storages = {}
    for tensor in tensors_in(holder):
        if tensor.layout is not torch.strided:  # packed for a processor's kernels: it has no storage to ask
            storages[id(tensor), str(tensor.device)] = tensor.numel() * tensor.element_size()
            continue
        storage = tensor.untyped_storage()
        storages[storage.data_ptr(), str(tensor.device)] = storage.nbytes()
    return sum(storages.values())


def tensors_in(holder: Any, seen: set[int] | None = None) -> Iterator[Tensor]:
    """Every real tensor within `holder`: a network, or an object of attributes, lists, tuples and dicts."""
    seen = set() if seen is None else seen
    if id(holder) in seen or isinstance(holder, fx.Graph | fx.Node | str | bytes | int | float | type):
        return
    seen.add(id(holder))
    if isinstance(holder, Tensor):
        if holder.device.type != "meta":
            yield holder
    elif isinstance(holder, nn.Module):
        yield from (*holder.parameters(), *holder.buffers())
        for module in holder.modules():
            yield from (value for value in vars(module).values() if isinstance(value, Tensor))
    elif isinstance(holder, dict):
        for value in holder.values():
            yield from tensors_in(value, seen)
    elif isinstance(holder, list | tuple | set):
        for value in holder:
            yield from tensors_in(value, seen)
    elif hasattr(holder, "__dict__") and not isinstance(holder, torch.dtype | torch.device):
        yield from tensors_in(vars(holder), seen)
