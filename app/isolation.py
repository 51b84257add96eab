"""One image's fault is its own: what makes a batch fail is found by halving it."""

import math
from collections.abc import Callable, Sequence
from typing import Literal, TypeVar

import torch
from torch import Tensor

__all__ = ["Fault", "Unjudged", "isolate"]

R = TypeVar("R")

Fault = Literal["out-of-memory", "exception", "not-a-number"]
NO_MEMORY = ("out of memory", "can't allocate memory", "not enough memory")


class Unjudged(Exception):  # noqa: N818  (it names the image's state)
    """Stands for, or is raised for, an image that the classifier or a detector could not judge. It was not
    cleared, and no label of it is known; the image itself need not be at fault."""

    retry_after = 1.0  # seconds

    def __init__(self, fault: Fault) -> None:
        super().__init__("the classifier or a detector could not judge the image: nobody has cleared it")
        self.fault: Fault = fault


def isolate(
    judge: Callable[[Tensor], Sequence[R]],
    images: Tensor,
    *,
    failed: Callable[[BaseException, int], None],
    give_up: Callable[[], bool] = lambda: False,
    shared: tuple[type[Exception], ...] = (),
) -> list[R | Unjudged]:
    """`judge(images)` for images (B, C, H, W), B ≥ 1. Where it raises, each half is judged alone, and so on
    down to single images: k guilty ones among B cost at most about 2k·log₂(B) more calls.

    `failed` is told of every call that failed and its number of images. No half is tried once `give_up`
    says so: nobody waits for it any more. What is of a `shared` type is nobody's fault, and raised.
    """
    try:
        results = judge(images)
        if len(results) != len(images):
            raise RuntimeError(f"{len(results)} results for {len(images)} images")
        return list(results)
    except shared:
        raise
    except BaseException as error:  # SystemExit too: it is one image's fault like any other
        fault = fault_of(error)
        failed(error, len(images))
    # From here on the exception is gone, and with its traceback the tensors that filled the memory.
    if fault == "out-of-memory" and torch.cuda.is_available():
        torch.cuda.empty_cache()
    if len(images) == 1 or give_up():
        return [Unjudged(fault)] * len(images)
    middle = math.ceil(len(images) / 2)
    return [
        each
        for half in (images[:middle], images[middle:])
        for each in isolate(judge, half, failed=failed, give_up=give_up, shared=shared)
    ]


def fault_of(error: BaseException) -> Fault:
    """PyTorch says on the CPU only in words that there is no memory."""
    if isinstance(error, MemoryError | torch.OutOfMemoryError):
        return "out-of-memory"
    said = str(error).lower()
    return "out-of-memory" if any(words in said for words in NO_MEMORY) else "exception"
