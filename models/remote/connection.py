"""How to reach a remote classifier: what the operator decides, not the bundle."""

from dataclasses import dataclass, field
from pathlib import Path

__all__ = ["Connection"]


@dataclass(frozen=True)
class Connection:
    """`credential` is sent as the header `credential_header`, as it is, and shown nowhere. Times in seconds.

    `url` takes the place of the bundle's. An attempt ends after `timeout`, however much of an answer has
    come; at most `retries` more follow it. After `breaker_failures` failed attempts in a row nothing is sent
    for `breaker_rest`.
    """

    url: str | None = None
    credential: str | None = field(default=None, repr=False)
    credential_header: str = "Authorization"
    ca_file: Path | None = None
    timeout: float = 10.0
    retries: int = 2
    concurrency: int = 4
    breaker_failures: int = 5
    breaker_rest: float = 5.0
    max_answer_bytes: int = 64 * 1024 * 1024
