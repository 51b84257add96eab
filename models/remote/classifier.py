"""The `remote` backend: a classifier behind somebody else's endpoint, as one blocking call."""

from functools import partial

import httpx
import torch
from torch import Tensor

from models.base import ClassifierInfo, check_images
from models.errors import BundleError
from models.remote.connection import Connection
from models.remote.deadline import time_left
from models.remote.protocols import RemoteProtocol, protocol_of
from models.remote.spec import RemoteSpec, base_url
from models.remote.upstream import Upstream
from models.weights import digest_of

__all__ = ["RemoteClassifier", "load_remote"]


class RemoteClassifier:
    """Satisfies `models.base.Classifier`. A batch becomes as few requests as `max_batch` allows, several at
    a time. `upstream` may be followed; `queries` counts the images asked about so far."""

    network = None
    device = torch.device("cpu")

    def __init__(
        self, info: ClassifierInfo, protocol: RemoteProtocol, upstream: Upstream, max_batch: int
    ) -> None:
        self.info, self.upstream = info, upstream
        self._protocol, self._max_batch = protocol, max_batch
        self.queries = 0

    @property
    def num_classes(self) -> int:
        return self.info.num_classes

    @torch.inference_mode()
    def logits(self, images: Tensor) -> Tensor:
        """(B, num_classes) float32, of `images` (B, C, H, W), float32 in [0, 1]. Blocks.

        Ends within `models.remote.due`, where that is set. Raises `InputError` for another shape or type,
        and an `UpstreamError`.
        """
        check_images(images, self.info)
        if not len(images):
            return torch.empty(0, self.num_classes)
        batches = torch.split(images, self._max_batch)
        self.queries += len(images)
        asks = [partial(self._protocol.ask, batch) for batch in batches]
        answers = self.upstream.ask(asks, time_left())
        return torch.cat(
            [
                self._protocol.logits(answer, len(batch))
                for answer, batch in zip(answers, batches, strict=True)
            ]
        )

    def close(self) -> None:
        """Let connections go."""
        self.upstream.close()


def load_remote(
    spec: RemoteSpec, connection: Connection, transport: httpx.AsyncBaseTransport | None = None
) -> RemoteClassifier:
    """The classifier that `spec` describes; asks it nothing yet. Raises `BundleError`."""
    try:
        url = base_url(connection.url or spec.url)
    except ValueError as error:
        raise BundleError(f"url: {error}") from error
    info = ClassifierInfo(
        name=spec.name,
        version=spec.version,
        digest=digest_of({}, spec.identity()),
        architecture=f"{spec.protocol}:{spec.model_name or spec.name}",
        backend=spec.backend,
        access=spec.access,
        num_classes=spec.classes,
        labels=spec.labels,
        channels=spec.input.channels,
        size=spec.input.size,
        interpolation=spec.input.interpolation,
    )
    return RemoteClassifier(info, protocol_of(spec), Upstream(url, connection, transport), spec.max_batch)
