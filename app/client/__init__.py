"""Clients of a gateway: for images, blocking and asynchronous, and for the admin's paths.

Needs httpx and nothing else of this repository:

    from app.client import Client

    with Client("http://127.0.0.1:8000") as client:
        for path, result in client.classify_folder("photos"):
            print(path, result.verdict, result.prediction)
"""

from app.client.admin import Advance, GatewayClient
from app.client.asynchronous import AsyncClient
from app.client.blocking import Client
from app.client.calls import Options
from app.client.errors import ClientError, Refused, Unreachable
from app.client.files import as_archive, image_files
from app.client.results import Detection, Prediction, Result

__all__ = [
    "Advance",
    "AsyncClient",
    "Client",
    "ClientError",
    "Detection",
    "GatewayClient",
    "Options",
    "Prediction",
    "Refused",
    "Result",
    "Unreachable",
    "as_archive",
    "image_files",
]
