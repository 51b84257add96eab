"""Bytes → (C, H, W) float32 in [0, 1], at the classifier's size, with every limit on the way.

ImageError
 ├─ EmptyImage         no bytes at all
 ├─ UnreadableImage    not an image of an allowed format, truncated, or corrupt
 ├─ UnsupportedImage   an image, but of a kind no classifier takes: animated, 32-bit samples
 └─ OversizedImage     more bytes or pixels than allowed

Nothing is decoded before the size in its header was checked. Colours are taken as their numbers say: an ICC
profile is not applied, as it is not where networks are trained.
"""

import io
import warnings
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Literal, TypeVar

import numpy as np
import numpy.typing as npt
from PIL import Image, ImageOps, UnidentifiedImageError
from PIL.TiffImagePlugin import TiffImageFile

__all__ = [
    "Decoder",
    "EmptyImage",
    "ImageError",
    "OversizedImage",
    "Pixels",
    "UnreadableImage",
    "UnsupportedImage",
    "readable",
]

Pixels = npt.NDArray[np.float32]
T = TypeVar("T")

RESAMPLING = {
    "nearest": Image.Resampling.NEAREST,
    "bilinear": Image.Resampling.BILINEAR,
    "bicubic": Image.Resampling.BICUBIC,
}
BOMBS = (Image.DecompressionBombError, Image.DecompressionBombWarning)
DEEP_MODES = ("I;16", "I;16L", "I;16B", "I;16N", "I")
DEEPEST = 65535  # a 16-bit sample's largest value
ONE_PICTURE = (
    "MPO",
    "GIF",
)  # a JPEG with a preview behind it; an animation of which the first frame is taken
PHOTOMETRIC, WHITE_IS_ZERO = 262, 0  # TIFF: how grey is to be read

# Pillow warns of what is odd in a file, in words that depend on the file: each would be another line in the
# log and another entry in a registry that is never emptied. What matters is an exception, or is checked here.
warnings.filterwarnings("ignore", module=r"PIL\.")


class ImageError(Exception):
    """Base of every reason why bytes are no usable image; its text may be shown to the caller."""


class EmptyImage(ImageError):  # noqa: N818  (the four name what the image is)
    """Raised where there are no bytes."""


class UnreadableImage(ImageError):  # noqa: N818
    """Raised where the bytes are not an image of an allowed format, or end early, or are corrupt."""


class UnsupportedImage(ImageError):  # noqa: N818
    """Raised for an animated image, or one whose samples have more than 16 bits."""


class OversizedImage(ImageError):  # noqa: N818
    """Raised for more bytes or pixels than the settings allow."""


@dataclass(frozen=True)
class Decoder:
    """Turns encoded images into what one classifier takes. Stateless: any thread may use it.

    `size` is (H, W); `formats` are Pillow's names of the formats that may be decoded at all.
    """

    size: tuple[int, int]
    channels: int
    interpolation: Literal["nearest", "bilinear", "bicubic"]
    formats: Sequence[str]
    max_bytes: int
    max_pixels: int

    def __call__(self, data: bytes) -> Pixels:
        """Decode `data` to (channels, *size) float32 in [0, 1]. Raises `ImageError`."""
        return self._read(data, self._samples)

    def picture(self, data: bytes, side: int) -> Image.Image:
        """`data` as people see it: upright, 8-bit grey or RGB, over white, at most `side` pixels wide and
        high, without anything else that the file holds. Raises `ImageError`."""
        return self._read(data, lambda stored, upright: _picture(stored, upright, side))

    def _read(self, data: bytes, use: Callable[[Image.Image, Image.Image], T]) -> T:
        """`use` is given the image as it was opened, and the same turned upright."""
        if not data:
            raise EmptyImage("the image has no bytes")
        if len(data) > self.max_bytes:
            raise OversizedImage(f"the image has {len(data)} bytes; at most {self.max_bytes} are taken")
        try:
            return self._opened(data, use)
        except ImageError:
            raise
        except BOMBS:
            raise OversizedImage(f"the image has more than {self.max_pixels} pixels") from None
        except Exception as error:  # Pillow's readers raise a dozen kinds on corrupt files
            raise UnreadableImage("the image is truncated or corrupt") from error

    def _opened(self, data: bytes, use: Callable[[Image.Image, Image.Image], T]) -> T:
        with self._open(data) as image:
            self._check(image)
            image.load()
            # Orientation last of all: it may copy the image, so only what passed the checks gets here.
            return use(image, ImageOps.exif_transpose(image))

    def _samples(self, stored: Image.Image, upright: Image.Image) -> Pixels:
        deep = upright.mode in DEEP_MODES
        samples = self._deep(deep_samples(stored, upright)) if deep else self._shallow(upright)
        return np.ascontiguousarray(samples, dtype=np.float32)

    def _open(self, data: bytes) -> Image.Image:
        try:
            return Image.open(io.BytesIO(data), formats=readable(self.formats))
        except UnidentifiedImageError:
            raise UnreadableImage(
                f"the bytes are not an image in one of the formats {', '.join(readable(self.formats))}"
            ) from None

    def _check(self, image: Image.Image) -> None:
        width, height = image.size
        if width * height > self.max_pixels:
            raise OversizedImage(
                f"the image is {width}×{height}, more than the {self.max_pixels} pixels that are taken"
            )
        if image.format not in ONE_PICTURE and getattr(image, "n_frames", 1) > 1:
            raise UnsupportedImage("the image is animated or has several pages; send one frame as an image")
        if image.mode == "F":
            raise UnsupportedImage("the image has floating-point samples; send 8 or 16 bits per sample")

    def _shallow(self, image: Image.Image) -> Pixels:
        """8 bits or fewer per sample. Conversions, resizing included, are Pillow's, on 8 bits."""
        wanted = "L" if self.channels == 1 else "RGB"
        image = over_white(image)
        if image.mode != wanted:
            image = image.convert(wanted)
        image = self._resize(image)
        samples = np.asarray(image, dtype=np.float32) / np.float32(255)
        return samples[None] if self.channels == 1 else samples.transpose(2, 0, 1)

    def _deep(self, values: npt.NDArray[np.int64]) -> Pixels:
        """16-bit grey, kept at its full precision; Pillow itself would clip it to 8 bits."""
        grey = self._resize(Image.fromarray(values.astype(np.float32) / np.float32(DEEPEST)))
        samples = np.asarray(grey, dtype=np.float32).clip(0, 1)  # bicubic overshoots
        return np.broadcast_to(samples, (self.channels, *samples.shape))

    def _resize(self, image: Image.Image) -> Image.Image:
        height, width = self.size
        if image.size == (width, height):
            return image
        return image.resize((width, height), RESAMPLING[self.interpolation])


def readable(formats: Sequence[str]) -> list[str]:
    """Those of `formats` that this Pillow can read; some of its builds lack AVIF."""
    Image.init()
    return [format for format in formats if format in Image.OPEN]


def deep_samples(stored: Image.Image, upright: Image.Image) -> npt.NDArray[np.int64]:
    """16-bit grey (H, W), 0 black and 65535 white, transparent pixels white. `stored` is the image as it was
    opened, `upright` the same turned. Raises `UnsupportedImage` for deeper samples."""
    values = np.asarray(upright).astype(np.int64)
    if values.min() < 0 or values.max() > DEEPEST:
        raise UnsupportedImage("the image has 32-bit samples; send 8 or 16 bits per sample")
    if isinstance(stored, TiffImageFile) and stored.tag_v2.get(PHOTOMETRIC) == WHITE_IS_ZERO:
        values = DEEPEST - values  # Pillow does so for 8 bits only
    transparent = stored.info.get("transparency")
    return np.where(values == transparent, DEEPEST, values) if isinstance(transparent, int) else values


def over_white(image: Image.Image) -> Image.Image:
    """`image` laid on a white ground where it has transparency, else as it is."""
    if not image.has_transparency_data:
        return image
    layer = image.convert("RGBA")
    return Image.alpha_composite(Image.new("RGBA", layer.size, "white"), layer).convert("RGB")


def _picture(stored: Image.Image, upright: Image.Image, side: int) -> Image.Image:
    if upright.mode in DEEP_MODES:
        upright = Image.fromarray((deep_samples(stored, upright) >> 8).astype(np.uint8))
    flat = over_white(upright)
    shown = flat if flat.mode == "L" else flat.convert("RGB")
    shown.thumbnail((side, side))
    return Image.fromarray(np.asarray(shown))  # comments, profiles and the like stay behind
