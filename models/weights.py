"""Reading and writing weights, and the digest that identifies a classifier.

Only tensors are ever read: safetensors, or a state dict under torch's restricted unpickler.
A whole pickled model is a program that runs when it is opened, so it is refused.
"""

import hashlib
import json
import pickle
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file, save_file
from torch import Tensor

from models.errors import WeightsError

__all__ = ["StateDict", "digest_of", "digest_of_files", "read_weights", "write_weights"]

StateDict = dict[str, Tensor]

PICKLED = (
    "{path} is not a plain state dict but a pickled Python object (or it is damaged). Opening one runs "
    "whatever code its author put inside, so it is refused. In an environment where you trust the file, save "
    "the tensors alone: `safetensors.torch.save_file(model.state_dict(), 'weights.safetensors')`."
)


def read_weights(path: Path) -> StateDict:
    """Read a state dict from `.safetensors`, or from a torch file with `weights_only=True`, onto the CPU.

    A torch file may hold the state dict itself or a checkpoint with a `state_dict` member.
    Raises `WeightsError` for a missing or broken file and for a pickled object.
    """
    if not path.is_file():
        raise WeightsError(f"{path} {'is not a file' if path.exists() else 'does not exist'}")
    content = _read_safetensors(path) if path.suffix == ".safetensors" else _read_torch_file(path)
    if isinstance(content, dict) and isinstance(content.get("state_dict"), dict):
        content = content["state_dict"]
    return _checked(content, path)


def _read_safetensors(path: Path) -> Any:
    try:
        return load_file(path, device="cpu")
    except Exception as error:  # SafetensorError, OSError, and KeyError for a type torch does not have
        raise WeightsError(f"{path} is not a readable safetensors file: {error}") from error


def _read_torch_file(path: Path) -> Any:
    try:
        return torch.load(path, map_location="cpu", weights_only=True)
    except pickle.UnpicklingError as error:
        raise WeightsError(PICKLED.format(path=path)) from error
    except Exception as error:  # a damaged file surfaces as RuntimeError, EOFError, KeyError and others
        # Only the first sentence: the ones after it advise to open the file unsafely.
        reason = str(error).partition(". ")[0] or type(error).__name__
        raise WeightsError(f"{path} is not a readable torch file: {reason}") from error


def _checked(content: Any, path: Path) -> StateDict:
    """`content` as a state dict of ordinary tensors, the only kind that a digest can be taken of."""
    if not isinstance(content, dict) or not content:
        what = "nothing" if content == {} else f"an object of type {type(content).__name__}"
        raise WeightsError(f"{path} holds {what}, not a state dict of named tensors")
    for name, value in content.items():
        if not isinstance(name, str) or not isinstance(value, Tensor):
            raise WeightsError(
                f"{path} is not a plain state dict: {name!r} is of type {type(value).__name__}. "
                "Save `model.state_dict()` alone, or a checkpoint with a `state_dict` member."
            )
        if value.layout != torch.strided or value.is_meta or value.is_quantized:
            raise WeightsError(
                f"{path}: {name!r} is a sparse, quantised or empty-shell tensor; save it dense"
            )
    return dict(content)


def write_weights(state: StateDict, path: Path, *, half: bool = False) -> None:
    """Write `state` as safetensors; `half` stores floating-point tensors as fp16 where its range suffices."""
    tensors = {}
    for name, value in state.items():
        tensor = value.detach().cpu().contiguous()
        shrinks = half and tensor.is_floating_point() and bool(tensor.half().isfinite().all())
        tensors[name] = tensor.half() if shrinks else tensor
    save_file(tensors, path)
    path.chmod(0o644)  # safetensors writes for its owner only; a bundle is served by another user


def digest_of(state: StateDict, facts: dict[str, Any]) -> str:
    """sha256 over the named tensors and `facts`, which must be JSON; hexadecimal.

    It depends on names, types, shapes and values, not on the order or the file format they came in.
    """
    digest = hashlib.sha256(json.dumps(facts, sort_keys=True, separators=(",", ":")).encode())
    for name in sorted(state):
        value = state[name].detach().cpu().contiguous()
        digest.update(f"\0{name}\0{value.dtype}\0{tuple(value.shape)}\0".encode())
        digest.update(value.reshape(-1).view(torch.uint8).numpy().data)
    return digest.hexdigest()


def digest_of_files(files: Mapping[str, bytes], facts: dict[str, Any]) -> str:
    """sha256 over the named contents of `files` and `facts`, which must be JSON; hexadecimal."""
    digest = hashlib.sha256(json.dumps(facts, sort_keys=True, separators=(",", ":")).encode())
    for name in sorted(files):
        digest.update(f"\0{name}\0{len(files[name])}\0".encode())
        digest.update(files[name])
    return digest.hexdigest()
