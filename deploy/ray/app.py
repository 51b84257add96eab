"""Triggerwall on Ray Serve: an ingress on CPUs in front of scorers with a device each.

`serve deploy deploy/ray/serve.yaml` starts it (docs/ray.md). Only the wiring is here: `app.replicas` knows
what is said between the two, and Ray which replica is asked, how many there are, and when one is replaced.
"""

import asyncio
import os
from functools import partial
from typing import Any

from ray import serve
from ray.exceptions import RayError
from ray.serve.config import BackpressureConfig
from ray.serve.exceptions import BackPressureError, DeploymentUnavailableError
from ray.serve.handle import DeploymentHandle, DeploymentResponse
from uvicorn.middleware.proxy_headers import ProxyHeadersMiddleware

from app import logs
from app.admission import Overloaded
from app.assembly import build_firewall
from app.firewall import Measured
from app.gateway import Judged
from app.main import create_app
from app.replicas.dispatcher import Dispatcher, ScorerLost
from app.replicas.firewall import RemoteFirewall
from app.replicas.scorer import Benign, Scorer, Work
from app.settings import Settings
from deploy.ray.metrics import Mirror

RETRY_AFTER_S = 1.0
MEASURE_S = 300.0  # the longest wait for one batch of a calibration
OVERLOADED = BackpressureConfig(status_code=503, retry_after_s=RETRY_AFTER_S)


@serve.deployment(
    name="scorer",
    max_ongoing_requests=256,  # how much waits for the device is bounded in rows, by the gateway's own queue
    max_queued_requests=256,
    backpressure_config=OVERLOADED,
    graceful_shutdown_timeout_s=60,
)
class ScorerReplica:
    """One device. What Ray calls a request is one request's images, or a batch of a calibration."""

    async def __init__(self, options: dict[str, Any]) -> None:
        settings = _settings(options)
        self._scorer = Scorer(settings)
        self._mirror = Mirror(self._scorer.gateway.metrics.registry)
        await self._scorer.start()

    async def judge(self, work: Work) -> Judged | Exception:
        return await self._scorer.judge(work)

    async def measure(self, benign: Benign) -> Measured | Exception:
        return await self._scorer.measure(benign)

    def check_health(self) -> None:
        """Ray replaces a replica for which this raises."""
        self._scorer.gateway.require_alive()

    async def __del__(self) -> None:
        await self._scorer.close()


@serve.deployment(
    name="ingress",
    max_ongoing_requests=256,
    max_queued_requests=1024,
    max_surge_percent=100,  # the next one is there before this one goes
    backpressure_config=OVERLOADED,
    graceful_shutdown_timeout_s=60,
)
@serve.ingress()
class IngressReplica:
    """HTTP, callers, decoding, decisions: the gateway without a device."""

    def __init__(self, options: dict[str, Any], scorers: DeploymentHandle) -> None:
        self._settings, self._scorers = _settings(options), scorers

    def __serve_build_asgi_app__(self) -> Any:
        """What Ray serves; it runs the lifespan."""
        own = self._settings.model_copy(update={"device": "cpu"})
        firewall = build_firewall(
            own, partial(RemoteFirewall, self._measure, f"{self._settings.device} of the scorers")
        )
        digest = firewall.classifier.info.digest
        app = create_app(own, firewall, Dispatcher(self._judge, digest, max_waiting=own.queue_rows))
        self._gateway = app.state.gateway
        self._mirror = Mirror(self._gateway.metrics.registry)
        return ProxyHeadersMiddleware(_named_by_ray(app), list(own.trusted_proxies))

    async def _judge(self, work: Work) -> Judged | Exception:
        asked: DeploymentResponse[Any] = self._scorers.judge.remote(work)
        try:
            return await asked
        except asyncio.CancelledError:
            asked.cancel()
            raise
        except BackPressureError as error:
            raise Overloaded(RETRY_AFTER_S) from error
        except (RayError, DeploymentUnavailableError) as error:
            raise _lost(error) from error

    def _measure(self, benign: Benign) -> Measured | Exception:
        try:
            return self._scorers.measure.remote(benign).result(timeout_s=MEASURE_S)
        except (RayError, DeploymentUnavailableError, TimeoutError) as error:
            raise _lost(error) from error

    def check_health(self) -> None:
        self._gateway.require_alive()


def _lost(error: Exception) -> Exception:
    """A scorer's own exceptions are answers: what Ray raises is that there is none."""
    return ScorerLost(f"no scorer answered ({type(error).__name__}): nobody has judged the images")


def _named_by_ray(app: Any) -> Any:
    """Ray's proxy gives every request its id, which the gateway takes over, and names it in the answer; once
    is enough."""

    async def named_once(scope: Any, receive: Any, send: Any) -> None:
        async def send_on(message: Any) -> None:
            headers = [each for each in message.get("headers", ()) if each[0] != b"x-request-id"]
            await send({**message, "headers": headers} if "headers" in message else message)

        await app(scope, receive, send_on)

    return named_once


def _settings(options: dict[str, Any]) -> Settings:
    settings = Settings(**options)
    logs.set_up(settings.log_level, settings.log_format)
    return settings


def application(options: dict[str, Any]) -> serve.Application:
    """What Ray's configuration file names. `options` are settings; they win over `TRIGGERWALL_*` of the
    environment, which every node has of its own: secrets belong there. Raises `ValueError`."""
    settings = Settings(**options)
    if os.environ.get("RAY_AUTH_MODE", "disabled") == "disabled":
        raise ValueError("set RAY_AUTH_MODE=token: whoever reaches Ray's ports runs code as the gateway")
    for name, why in NEEDED.items():
        if getattr(settings, name) is None:
            raise ValueError(f"set TRIGGERWALL_{name.upper()}: {why}")
    for name, why in REFUSED.items():
        if getattr(settings, name):
            raise ValueError(f"{name} cannot be used on Ray Serve: {why}")
    return IngressReplica.bind(options, ScorerReplica.bind(options))


NEEDED = {
    "admin_key": "callers come through Ray's proxy, so none of them can be taken for this machine",
    "database_url": "that is where replicas share calibrations and decisions",
}
REFUSED = {
    "admin_port": "Ray's proxy has one port; keep admin paths from strangers in the proxy before it",
    "enforce_after_learning": "the mode is the same for all replicas, so it changes with the settings only",
}
