"""Endpoints in memory that serve a function of the image which anybody can compute."""

from typing import Any

import httpx
import numpy as np
import pytest
import torch

from models.remote import Connection, RemoteClassifier, load_remote
from models.remote.fake import FakeServer
from models.remote.spec import RemoteSpec

CLASSES = ("dark", "dim", "bright", "white")
QUICK = {"timeout": 0.2, "retries": 0}


def spec(**fields: Any) -> RemoteSpec:
    base = {
        "name": "far",
        "url": "http://far.example/base/",
        "model_name": "far",
        "access": "probabilities",
        "labels": CLASSES,
        "input": {"size": [4, 5], "channels": 1},
    }
    return RemoteSpec.model_validate({**base, **fields})


def probabilities(images: Any) -> np.ndarray:
    """(B, ...) in [0, 1] → (B, 4): the brighter, the more the later classes weigh."""
    brightness = np.asarray(images, dtype=np.float32).reshape(len(images), -1).mean(1)
    distance = np.abs(brightness[:, None] - np.linspace(0, 1, 4, dtype=np.float32)) * 8
    weights = np.exp(-distance)
    return np.asarray(weights / weights.sum(1, keepdims=True), dtype=np.float32)


def labels(images: Any) -> np.ndarray:
    return probabilities(images).argmax(1)


def pictures(count: int, seed: int = 0) -> torch.Tensor:
    """(count, 1, 4, 5): grey of many shades, exact in 8 bits."""
    shades = np.random.default_rng(seed).integers(0, 256, (count, 1, 1, 1))
    return torch.from_numpy(np.tile(shades, (1, 1, 4, 5)) / np.float32(255)).float()


class Far:
    """A fake endpoint and the classifier in front of it."""

    def __init__(self, server: FakeServer, classifier: RemoteClassifier) -> None:
        self.server, self.classifier = server, classifier

    @property
    def rows(self) -> list[int]:
        return [rows for rows, _ in self.server.requests]


@pytest.fixture
def far(request: pytest.FixtureRequest) -> Any:
    """Builds a `Far`: `far(faults, connection fields, spec fields)`."""

    def build(
        faults: Any = (),
        connection: dict[str, Any] | None = None,
        server: FakeServer | None = None,
        **fields: Any,
    ) -> Far:
        chosen = spec(**fields)
        answer = probabilities if chosen.access == "probabilities" else labels
        fake = server or FakeServer(answer, faults)
        transport: httpx.AsyncBaseTransport = fake.transport()
        classifier = load_remote(chosen, Connection(**{**QUICK, **(connection or {})}), transport)
        request.addfinalizer(classifier.close)
        return Far(fake, classifier)

    return build
