"""Incidents: rejections that share a predicted label and follow each other closely."""

from typing import Any

from app.console.classes import class_name
from app.gateway import Gateway
from app.storage.decisions import Span
from app.storage.errors import UnknownImage
from app.storage.incidents import incident_images, incidents

__all__ = ["IMAGES", "incident_page", "incidents_page"]

NEWEST = 10_000  # rejections that a page looks at
SHOWN = 30  # incidents
IMAGES = 60  # of an incident


def incidents_page(gateway: Gateway, span: Span) -> dict[str, Any]:
    """Blocking. Raises `StoreError`."""
    found = incidents(gateway.database, span, limit=SHOWN, most=NEWEST)
    return {
        "incidents": [(each, class_name(gateway.info, each.label)) for each in found],
        "most": NEWEST,
        "limit": SHOWN,
    }


def incident_page(gateway: Gateway, label: int, first: int, last: int) -> dict[str, Any]:
    """Blocking. Raises `StoreError`, and `UnknownImage` where none of its images is kept."""
    digests = incident_images(gateway.database, label, first, last, IMAGES)
    if not digests:
        raise UnknownImage("no image of this incident is in quarantine, or no longer")
    held = [gateway.quarantine.get(each) for each in digests]
    name = class_name(gateway.info, label)
    return {"label": label, "name": name, "first": first, "last": last, "images": [(h, name) for h in held]}
