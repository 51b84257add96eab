"""What pages of the console load: their style and script, and pictures, always as PNG that was made here."""

import asyncio
from collections.abc import Sequence
from typing import Annotated

import numpy as np
from fastapi import APIRouter, Path, Response

from app.average import average_picture
from app.console.heat import heat_picture
from app.console.image import changed
from app.console.pictures import LARGE, THUMBNAIL, picture
from app.console.rendering import ASSETS, asset
from app.errors import NotFound
from app.explanation import sensitivity_of
from app.recording.images import as_file
from app.routes.console.access import Visit, VisitOf
from app.seen import pixels_of
from app.storage.incidents import incident_images
from detectors.base import DetectorError
from models.errors import ModelError

router = APIRouter()

Sha256 = Annotated[str, Path(pattern=r"^[0-9a-f]{64}$")]
Number = Annotated[int, Path(ge=0, le=2**63 - 1)]
LONG = "private, max-age=86400, immutable"  # what lies under a digest does not change
AVERAGED = 60  # images, at most
COVERED = 8  # images, at most: each costs fifty forward passes


@router.get("/static/{name}")
def static(name: str) -> Response:
    if name not in ASSETS:
        raise NotFound("there is no such file")
    content, kind = asset(name)
    return Response(content, media_type=kind, headers={"Cache-Control": "max-age=86400"})


@router.get("/pictures/{sha256}.png")
async def received(sha256: Sha256, visit: VisitOf, large: bool = False) -> Response:
    """The image as it came."""
    side = LARGE if large else THUMBNAIL
    gateway = visit.gateway
    async with visit.console.pictures:
        found = await asyncio.to_thread(picture, gateway.recording.blobs, gateway.decoder, sha256, side)
    return _png(found)


@router.get("/pictures/{sha256}/seen.png")
async def seen(sha256: Sha256, visit: VisitOf) -> Response:
    """The image as the classifier sees it."""
    async with visit.console.pictures:
        found = await asyncio.to_thread(pixels_of, visit.gateway, sha256)
    return _png(None if found.pixels is None else as_file(found.pixels))


@router.get("/pictures/{sha256}/probes/{name}.png")
async def probed(sha256: Sha256, name: str, visit: VisitOf) -> Response:
    """The image as the classifier sees it under a probe."""
    async with visit.console.pictures:
        return _png(await asyncio.to_thread(_probed, visit, sha256, name))


def _probed(visit: Visit, sha256: str, name: str) -> bytes | None:
    found = pixels_of(visit.gateway, sha256)
    after = None if found.pixels is None else changed(visit.gateway, found.pixels, name)
    return None if after is None else as_file(after)


@router.get("/pictures/{sha256}/sensitivity.png")
async def sensitive(sha256: Sha256, visit: VisitOf) -> Response:
    """Where the image's label comes from."""
    held = await asyncio.to_thread(visit.gateway.quarantine.get, sha256)
    return await _heat(visit, held.label, [sha256])


@router.get("/incidents/{label}/{first}/{last}/sensitivity.png")
async def incident_sensitive(label: Number, first: Number, last: Number, visit: VisitOf) -> Response:
    """Where the label of an incident's newest images comes from, on average, over their mean."""
    digests = await asyncio.to_thread(incident_images, visit.gateway.database, label, first, last, COVERED)
    return await _heat(visit, label, digests)


async def _heat(visit: Visit, label: int, digests: Sequence[str]) -> Response:
    gateway = visit.gateway
    async with visit.console.pictures:
        seen = await asyncio.to_thread(lambda: [pixels_of(gateway, each).pixels for each in digests])
        images = [each for each in seen if each is not None]
        if not images or not 0 <= label < gateway.info.num_classes:
            return _png(None)
        try:
            found = [await sensitivity_of(gateway.worker, gateway.firewall, each, label) for each in images]
        except (TimeoutError, DetectorError, ModelError):
            return _png(None)
        mean = np.mean(images, axis=0), np.mean(found, axis=0)
        # Another model of the same name sees another place: not to be kept by the browser.
        return _png(await asyncio.to_thread(heat_picture, *mean), cache="no-store")


@router.get("/incidents/{label}/{first}/{last}/average.png")
async def average(label: Number, first: Number, last: Number, visit: VisitOf) -> Response:
    """The mean of an incident's newest images, as the classifier sees them."""
    async with visit.console.pictures:
        return _png(await asyncio.to_thread(_average, visit, label, first, last))


def _average(visit: Visit, label: int, first: int, last: int) -> bytes | None:
    gateway = visit.gateway
    digests = incident_images(gateway.database, label, first, last, AVERAGED)
    files = (gateway.recording.blobs.get(each) for each in digests)
    return average_picture((each for each in files if each is not None), gateway.decoder)


def _png(content: bytes | None, cache: str = LONG) -> Response:
    if content is None:
        raise NotFound("there is no such picture, or no longer")
    headers = {"Cache-Control": cache, "Content-Security-Policy": "default-src 'none'; sandbox"}
    return Response(content, media_type="image/png", headers=headers)
