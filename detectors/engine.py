"""Which engine runs the n + 1 networks, and proof at load time that it computes the right ones."""

import copy
import logging
from collections.abc import Sequence
from typing import Any, Literal

import torch
from torch import Tensor, nn
from torch.utils.flop_counter import FlopCounterMode

from detectors.agreement import check_agreement, logits_and_tolerance
from detectors.amplification import Amplified, Copies, amplify, check_images
from detectors.base import InputError, UnsupportedNetwork
from detectors.compiling import WARM, packing
from detectors.fork import Fork
from detectors.tracing import Trace

__all__ = ["build_engine", "flops", "self_check"]

CHECKED_IMAGES = 16

log = logging.getLogger("triggerwall.amplification")


def build_engine(
    network: nn.Module,
    omega: float,
    counts: Sequence[int],
    order: Sequence[str],
    example: Tensor,
    prefer: Literal["fork", "copies"] = "fork",
    *,
    dtype: torch.dtype = torch.float32,
    channels_last: bool = False,
    fold: bool = False,
    compile: bool = False,
    traced: Trace | None = None,
) -> Amplified:
    """The fork engine where `network` can be traced and agrees with amplified copies on `example`; else
    `Copies`, in float32, with the reason in its `engine` and in the log.

    `example` (B ≥ 1, C, H, W): real benign images, of which the first 16 are used; two or more let the
    check see a network that mixes the images of a batch. Where a fork of `traced` fails, one of a new trace
    is tried. The rest as for `Fork`. Raises `InputError` for arguments out of range, and for an ω at which
    the amplified networks overflow float32.
    """
    if prefer not in ("fork", "copies"):
        raise InputError(f"prefer must be 'fork' or 'copies', not {prefer!r}")
    if prefer == "copies":
        return Copies(network, omega, counts, order)
    try:
        engine = Fork(
            network, omega, counts, order, example,
            dtype=dtype, channels_last=channels_last, fold=fold, compile=compile, traced=traced,
        )  # fmt: skip
        check = self_check if engine.compilation is None else _check_compiled
        check(engine, network, order, example)
    except InputError:
        raise
    except Exception as error:  # a stranger's network: whatever goes wrong, `Copies` can still run it
        if traced is not None:  # what was done to it since may be what went wrong
            log.warning("the fork engine cannot use the shared network and traces its own: %s", error)
            return build_engine(network, omega, counts, order, example, fold=fold)
        why = str(error) if isinstance(error, UnsupportedNetwork) else f"{type(error).__name__}: {error}"
        why = why.splitlines()[0][:200] if why else "unknown"
        log.warning("the fork engine cannot run this network and copies of it are used: %s", why)
        return Copies(network, omega, counts, order, why)
    return engine


def _check_compiled(engine: Fork, network: nn.Module, order: Sequence[str], example: Tensor) -> None:
    """Compile everything, so that no request waits for it, and check that. What is wrong when compiled may
    still be right when run eagerly: then the segments are, and are checked as such."""
    assert engine.compilation is not None
    try:
        with packing(example.device):
            for batch in WARM:
                engine.base(example[:1].expand(batch, *example.shape[1:]))
            self_check(engine, network, order, example)
    except UnsupportedNetwork as error:
        if engine.compilation.why is not None:
            raise
        engine.compilation.give_up(str(error))
        self_check(engine, network, order, example)


@torch.inference_mode()
def self_check(engine: Fork, network: nn.Module, order: Sequence[str], example: Tensor) -> None:
    """Compare every variant of `engine` with an amplified deep copy of `network` on `example`: all rows,
    some rows in another order, one image alone, and that run along with the base. At most one copy is
    alive at a time.

    A difference is measured against the largest logit, see `agreement.TOLERANCE`.

    The comparison is in float32 whatever arithmetic `engine` uses; reduced precision is then only run.
    Raises `UnsupportedNetwork` where they differ, `InputError` where ω overflows float32.
    """
    check_images(example, network)
    images = example[:CHECKED_IMAGES]
    exact = copy.copy(engine)  # shares the segments
    exact.dtype = torch.float32
    # cuDNN's TF32 rounds to 10 bits, which would hide a real difference or look like one.
    with torch.backends.cudnn.flags(enabled=torch.backends.cudnn.enabled, allow_tf32=False):
        _compare_all(exact, network, order, images)
    if engine.dtype is not torch.float32:
        engine.variants(engine.base(images)[1], range(len(engine.counts)))


def _compare_all(engine: Fork, network: nn.Module, order: Sequence[str], images: Tensor) -> None:
    some = torch.arange(len(images) - 1, -1, -2, device=images.device)
    logits, forks = engine.base(images)
    single_logits, single = engine.base(images[:1])
    along = engine.base(images[:1], range(len(engine.counts)))[1]
    plain, tolerance = logits_and_tolerance(network, images)
    check_agreement(logits, plain, tolerance, "base")
    check_agreement(single_logits, network(images[:1]), tolerance, "base, one image")
    together = engine.variants(forks, range(len(engine.counts)))
    for number, count in enumerate(engine.counts):
        name = f"variant {count}"
        variant = amplify(network, order[-count:], engine.omega)
        expected, tolerance = logits_and_tolerance(variant, images)
        alone = variant(images[:1])
        del variant  # before the next copy is made
        if not bool(expected.isfinite().all()):
            raise InputError(
                f"with omega = {engine.omega:g} and {count} amplified layers the logits overflow; "
                "use a smaller omega or fewer layers"
            )
        check_agreement(together[number], expected, tolerance, name)
        of_some = engine.variants(forks, [number], some)[0]
        check_agreement(of_some, expected[some], tolerance, f"{name}, some rows")
        check_agreement(engine.variants(single, [number])[0], alone, tolerance, f"{name}, one image")
        check_agreement(engine.variants(along, [number])[0], alone, tolerance, f"{name}, run along")


def flops(engine: Amplified, example: Tensor, together: Sequence[int] = ()) -> dict[str, Any]:
    """Exact multiply-adds, counted twice as usual, of one call on `example` (B, C, H, W), as counted by
    `FlopCounterMode` (convolutions and matrix products).

    `base`: the base pass; `variants`: each variant alone, from the forks, in the order of
    `engine.counts`; `together`: the variants numbered `together` (default: all) in one call.
    """
    with FlopCounterMode(display=False) as counter:
        forks = engine.base(example)[1]
    return {
        "base": counter.get_total_flops(),
        "variants": [_variant_flops(engine, forks, [number]) for number in range(len(engine.counts))],
        "together": _variant_flops(engine, forks, together or range(len(engine.counts))),
    }


def _variant_flops(engine: Amplified, forks: Any, which: Sequence[int]) -> int:
    with FlopCounterMode(display=False) as counter:
        engine.variants(forks, which)
    return int(counter.get_total_flops())
