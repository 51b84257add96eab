"""What can go wrong between a client and its gateway.

ClientError
 ├─ Unreachable   nobody answers there, or not in JSON
 └─ Refused       the gateway answered with a problem
"""

from collections.abc import Mapping
from typing import Any

import httpx

__all__ = ["ClientError", "Refused", "Unreachable", "check"]


class ClientError(Exception):
    """The gateway could not be reached, or answered with a problem; the text says which and why."""


class Unreachable(ClientError):  # noqa: N818  (the two name what happened)
    """Raised where no answer came, or one that no gateway gives."""


class Refused(ClientError):  # noqa: N818
    """Raised for a problem (RFC 9457). `type` is its stable name, such as
    `urn:triggerwall:problem:overloaded`; `retry_after` the seconds to wait, where trying again may help."""

    def __init__(self, status: int, problem: Mapping[str, Any], retry_after: float | None) -> None:
        # Of the gateway's own failures the reason is in its log alone, under this id.
        where = f" (request {problem['request_id']})" if status >= 500 and "request_id" in problem else ""
        super().__init__(f"{problem.get('title', status)}: {problem.get('detail', '')}{where}")
        self.status, self.retry_after = status, retry_after
        self.type = str(problem.get("type", "about:blank"))
        self.problem = dict(problem)


def check(answer: httpx.Response) -> httpx.Response:
    """`answer`, unless it is a problem. Raises `Refused`, and `Unreachable` for no answer of a gateway's."""
    if answer.is_error:
        content = json_of(answer)
        problem = content if isinstance(content, dict) else {}
        raise Refused(answer.status_code, problem, _retry_after(answer))
    return answer


def json_of(answer: httpx.Response) -> Any:
    """Raises `Unreachable` for anything else."""
    try:
        return answer.json()
    except ValueError as error:
        raise Unreachable(f"{answer.url} did not answer in JSON: is it a gateway?") from error


def _retry_after(answer: httpx.Response) -> float | None:
    text = answer.headers.get("retry-after", "")
    return float(text) if text.isascii() and text.isdigit() else None
