"""A quarantined image as the classifier takes it."""

from dataclasses import dataclass

from app.gateway import Gateway
from app.images import ImageError, Pixels
from app.storage.blobs import BlobError

__all__ = ["Seen", "pixels_of"]


@dataclass(frozen=True)
class Seen:
    """The pixels, or the sentence that says why there are none."""

    pixels: Pixels | None
    problem: str | None


def pixels_of(gateway: Gateway, sha256: str) -> Seen:
    """Of the image with this digest. Blocking."""
    try:
        data = gateway.recording.blobs.get(sha256)
    except BlobError as error:
        return Seen(None, str(error))
    if data is None:
        return Seen(None, "the image's file is gone")
    try:
        return Seen(gateway.decoder(data), None)
    except ImageError as error:
        return Seen(None, f"the image's file cannot be read any more: {error}")
