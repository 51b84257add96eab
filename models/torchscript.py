"""The `torchscript` backend: a program that the bundle brings with it, run by TorchScript's interpreter."""

import io
import warnings
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from models.base import ClassifierInfo, check_images
from models.batches import Bounded
from models.bundle import TorchScriptSpec, read_artefact
from models.contract import count_classes, pixel_network
from models.errors import BundleError, WeightsError
from models.torch_module import info_of
from models.weights import digest_of_files

__all__ = ["TorchScriptClassifier", "load_torchscript"]

UNTRUSTED = (
    "{name} is TorchScript: a program, which runs when it is opened and whenever it is asked. Where you "
    "trust its author, set TRIGGERWALL_TRUST_MODEL_CODE=true; else have the network exported with "
    "torch.export or to ONNX"
)


class TorchScriptClassifier:
    """A TorchScript program on one device, fed pixels; satisfies `models.base.Classifier`.

    Its BatchNorms cannot be reached, so it counts as giving probabilities, not weights.
    """

    network = None

    def __init__(self, program: nn.Module, info: ClassifierInfo, device: torch.device) -> None:
        self.info, self.device, self._program = info, device, program

    @property
    def num_classes(self) -> int:
        return self.info.num_classes

    @torch.inference_mode()
    def logits(self, images: Tensor) -> Tensor:
        """Logits (B, num_classes), float32, of `images` (B, C, H, W), float32 in [0, 1], on `device`.

        Raises `InputError` for another shape or type.
        """
        check_images(images, self.info)
        out: Tensor = self._program(images)
        return out.float()


def load_torchscript(
    spec: TorchScriptSpec, directory: Path, device: torch.device | str = "cpu", *, trusted: bool = False
) -> TorchScriptClassifier:
    """Load the bundle of `spec` in `directory` onto `device`. Raises a `BundleError`, also where its author
    is not `trusted`."""
    if not trusted:
        raise BundleError(UNTRUSTED.format(name=spec.weights))
    device = torch.device(device)
    data = read_artefact(spec, directory)
    program = _open(data, spec.weights, device).eval()
    bounded = program if spec.batch is None else Bounded(program, (spec.batch, spec.batch))
    served = pixel_network(bounded, spec).to(device)
    classes = count_classes(served, spec, spec.weights, device)
    digest = digest_of_files({"program": data}, spec.identity())
    info = info_of(spec, digest, spec.weights, classes, access="probabilities")
    return TorchScriptClassifier(served, info, device)


def _open(data: bytes, name: str, device: torch.device) -> nn.Module:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", FutureWarning)  # that TorchScript is deprecated: the files are there
        try:
            program: Any = torch.jit.load(io.BytesIO(data), map_location=device)  # type: ignore[no-untyped-call]
        except Exception as error:  # RuntimeError and others, with the interpreter's stack in their text
            reason = (str(error).strip() or type(error).__name__).splitlines()[0][:200]
            raise WeightsError(f"{name} is not a readable TorchScript file: {reason}") from error
    module: nn.Module = program
    return module
