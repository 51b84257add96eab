"""Image tensors → (C, H, W) float32 in [0, 1] at the classifier's size. Nothing is clipped."""

import math
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from PIL import Image

from app.images import RESAMPLING, Pixels
from app.v2.errors import BadRequest
from models.base import ClassifierInfo
from models.open_inference import NamedTensor

__all__ = ["ImageTensors"]

PIXEL_TYPES = {"FP32": 1, "UINT8": 255}
"""Datatypes of image tensors, with the value that is white."""


@dataclass(frozen=True)
class ImageTensors:
    """What one classifier takes as image tensors; `max_pixels` bounds height × width."""

    info: ClassifierInfo
    max_pixels: int

    def images(self, tensor: NamedTensor) -> list[Pixels]:
        """The images of a batch of FP32 in [0, 1] or UINT8, (B, C, H, W) or (B, H, W, C).

        The channels' axis is told by its length; where both could be it, the one that leaves the network's
        own size, else NCHW; the tensor's parameter `layout` settles it. Images of another size are
        resized as encoded ones are. Raises `BadRequest`.
        """
        if tensor.datatype not in PIXEL_TYPES:
            raise BadRequest(
                f"{tensor.name!r} is {tensor.datatype}: send pixels as FP32 in [0, 1] or as UINT8, or "
                "encoded images as BYTES"
            )
        batch = self._channels_first(tensor)
        height, width = batch.shape[2:]
        if not 0 < height * width <= self.max_pixels:
            raise BadRequest(
                f"{tensor.name!r} holds images of {width}×{height}; 1 to {self.max_pixels} pixels are taken"
            )
        self._check_values(tensor)
        return [self._fitted(image) for image in batch]

    def _channels_first(self, tensor: NamedTensor) -> npt.NDArray[np.generic]:
        shape, channels = tensor.values.shape, self.info.channels
        layout = tensor.parameters.get("layout")
        if layout not in (None, "NCHW", "NHWC"):
            raise BadRequest(f"{tensor.name!r}: the parameter `layout` is NCHW or NHWC, not {layout!r:.40}")
        first = len(shape) == 4 and shape[1] == channels and layout != "NHWC"
        last = len(shape) == 4 and shape[3] == channels and layout != "NCHW"
        if not first and not last:
            raise BadRequest(
                f"{tensor.name!r} has shape {list(shape)}: send a batch [B, {channels}, H, W] or "
                f"[B, H, W, {channels}]"
            )
        if last and (not first or (shape[1:3] == self.info.size and shape[2:] != self.info.size)):
            return tensor.values.transpose(0, 3, 1, 2)
        return tensor.values

    def _check_values(self, tensor: NamedTensor) -> None:
        if tensor.datatype != "FP32" or not tensor.values.size:
            return
        least, most = float(tensor.values.min()), float(tensor.values.max())  # NaN where any value is
        if not (math.isfinite(least) and math.isfinite(most)):
            raise BadRequest(f"{tensor.name!r} holds pixels that are not finite numbers")
        if least < 0 or most > 1:
            raise BadRequest(
                f"{tensor.name!r} holds pixels from {least:g} to {most:g}; FP32 pixels lie in "
                "[0, 1], before any normalisation. Divide, or send UINT8; nothing is clipped"
            )

    def _fitted(self, image: npt.NDArray[np.generic]) -> Pixels:
        """(C, H, W) of the tensor's type → (C, *size) float32."""
        white = 255 if image.dtype == np.uint8 else 1
        height, width = self.info.size
        if image.shape[1:] != (height, width):
            resample = RESAMPLING[self.info.interpolation]
            # Bytes are resized as bytes, as they would be out of a PNG; Pillow copies what is not contiguous.
            planes = [Image.fromarray(np.ascontiguousarray(plane)) for plane in image]
            resized = [np.asarray(plane.resize((width, height), resample)) for plane in planes]
            image = np.stack(resized)
        scaled = np.ascontiguousarray(image, dtype=np.float32) / np.float32(white)
        return scaled.clip(0, 1)  # bicubic overshoots
