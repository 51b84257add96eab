"""From the name in a bundle to a network: `torchvision:NAME`, `timm:NAME`, `zoo:NAME`, `package:callable`."""

import importlib
import inspect
import sys
from collections.abc import Callable
from functools import partial
from importlib.metadata import packages_distributions
from typing import Any, get_type_hints

from torch import nn

from models.errors import ArchitectureError
from models.zoo import ZOO

__all__ = ["build_network"]

Builder = Callable[..., Any]

# Arguments with which torchvision, timm and their like fetch weights from the network or from another file.
DOWNLOADS = (
    "pretrained", "weights", "weights_backbone",
    "checkpoint_path", "pretrained_cfg", "pretrained_cfg_overlay",
)  # fmt: skip


def build_network(architecture: str, args: dict[str, Any]) -> nn.Module:
    """Build the network `architecture` names, with `args` and randomly initialised weights.

    `torchvision:NAME` is one of torchvision's image classifiers, `timm:NAME` one of timm's (where that is
    installed), `zoo:NAME` one of `models.zoo`, and
    `package.module:callable` a network class or a function that returns a network. The last imports that
    module, so a bundle that names one is as trusted as the module; what plainly builds no network
    (`os:system`, `torch:load`) is refused. Nothing is downloaded.

    Raises `ArchitectureError`: unknown name, not a builder, wrong arguments.
    """
    for name in DOWNLOADS:
        if args.get(name):
            raise ArchitectureError(
                f"architecture_args: remove {name!r}: weights come from the bundle, never from a download"
            )
    builder = _find_builder(architecture)
    try:
        network = builder(**args)
    except Exception as error:
        raise ArchitectureError(f"{architecture} could not be built with {args}: {error}") from error
    if not isinstance(network, nn.Module):
        kind = type(network).__name__
        raise ArchitectureError(f"{architecture} returned an object of type {kind}, not an nn.Module")
    return network


def _find_builder(architecture: str) -> Builder:
    source, _, name = architecture.partition(":")
    if source == "zoo":
        if name not in ZOO:
            raise ArchitectureError(f"zoo has no {name!r}; it has {', '.join(sorted(ZOO))}")
        return ZOO[name]
    if source == "torchvision":
        return _from_torchvision(name)
    if source == "timm":
        return _from_timm(name)
    return _from_module(source, name)


def _from_torchvision(name: str) -> Builder:
    from torchvision import models as classifiers  # a second of import time that other bundles are spared

    # Its detectors and segmenters are no image classifiers, and fetch a backbone when none is given.
    if name not in classifiers.list_models(module=classifiers):
        raise ArchitectureError(f"torchvision has no image classifier {name!r}; see torchvision.models")
    builder: Builder = classifiers.get_model_builder(name)
    return builder


def _from_timm(name: str) -> Builder:
    try:
        import timm
    except ImportError as error:
        raise ArchitectureError(f"timm:{name} needs the package timm: pip install -e '.[timm]'") from error
    if not timm.is_model(name):
        raise ArchitectureError(f"timm has no model {name!r}; see timm.list_models()")
    return partial(timm.create_model, name)


def _from_module(source: str, name: str) -> Builder:
    try:
        target: Any = importlib.import_module(source)
        for part in name.split("."):
            target = getattr(target, part)
    except Exception as error:  # importing runs the module, which may fail in any way
        raise ArchitectureError(f"{source}:{name} cannot be imported: {error}") from error
    if not _builds_networks(target):
        raise ArchitectureError(
            f"{source}:{name} is not known to build a network: name an nn.Module class, a function annotated "
            "as returning one (`-> nn.Module`), or a function of your own module"
        )
    builder: Builder = target
    return builder


def _builds_networks(target: Any) -> bool:
    """Whether calling `target` is meant to give a network.

    A bundle may come from the very person one guards against, and the functions of the standard library
    and of installed packages include many that run commands or open pickles. So those must say that they
    return a network; functions that the operator put on the path need not.
    """
    if inspect.isclass(target):
        return issubclass(target, nn.Module)
    if not inspect.isfunction(target):
        return False
    try:
        returned = get_type_hints(target).get("return")
    except Exception:  # annotations are arbitrary expressions
        returned = None
    if inspect.isclass(returned):
        return issubclass(returned, nn.Module)
    package = target.__module__.partition(".")[0]
    return package not in sys.stdlib_module_names and package not in packages_distributions()
