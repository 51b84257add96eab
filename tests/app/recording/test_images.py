"""Images as they are kept."""

import hashlib
import io

import numpy as np
import pytest
from PIL import Image

from app.recording.images import as_file, digest, media_type
from tests.app.tiny import encoded, pixels


def test_bytes_stay_as_they_came() -> None:
    data = encoded(pixels(1)[0])
    assert as_file(data) is data
    assert digest(data) == hashlib.sha256(data).hexdigest()


@pytest.mark.parametrize("channels", [1, 3])
def test_a_tensor_becomes_a_picture_of_its_pixels(channels: int) -> None:
    values = np.random.default_rng(0).integers(0, 256, (channels, 8, 6), dtype=np.uint8)
    floats = (values / 255).astype(np.float32)
    found = np.asarray(Image.open(io.BytesIO(as_file(floats))))
    assert np.array_equal(found if channels == 1 else found.transpose(2, 0, 1), values.squeeze())
    assert digest(floats) == hashlib.sha256(values.tobytes()).hexdigest()


@pytest.mark.parametrize(
    ("format", "kind"),
    [("PNG", "png"), ("JPEG", "jpeg"), ("BMP", "bmp"), ("GIF", "gif"), ("TIFF", "tiff"), ("WEBP", "webp")],
)
def test_media_types(format: str, kind: str) -> None:
    assert media_type(encoded(pixels(1)[0], format)) == f"image/{kind}"


def test_what_is_no_known_image_is_just_bytes() -> None:
    assert media_type(encoded(pixels(1)[0], "PPM")) == "image/x-portable-graymap"
    assert media_type(b"<html><script>") == "application/octet-stream"
    assert media_type(b"\0\0\0\x1cftypavif\0\0\0\0") == "image/avif"
    assert media_type(b"") == "application/octet-stream"
