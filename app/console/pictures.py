"""Quarantined images as pictures that are safe to show: read by our own decoder, and written anew as PNG."""

import io

from app.images import Decoder, ImageError
from app.storage.blobs import Blobs

__all__ = ["LARGE", "THUMBNAIL", "picture"]

THUMBNAIL, LARGE = 160, 1024  # pixels, at most


def picture(blobs: Blobs, decoder: Decoder, sha256: str, side: int) -> bytes | None:
    """The image as it came, as PNG of at most `side` pixels; None where its file is gone or is no image that
    is still taken. Raises `BlobError`."""
    data = blobs.get(sha256)
    if data is None:
        return None
    buffer = io.BytesIO()
    try:
        decoder.picture(data, side).save(buffer, "PNG")
    except ImageError:
        return None
    return buffer.getvalue()
