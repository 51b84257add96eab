"""What a v2 request can get wrong besides its images.

V2Error
 ├─ BadRequest     the message or a tensor in it is not what the protocol or this model takes
 ├─ UnknownModel   another model or version is asked for than the one that is served
 └─ RejectedRows   the batch has rows without an answer, and the caller did not ask for the others
"""

from collections.abc import Sequence
from typing import Any

__all__ = ["BadRequest", "RejectedRows", "UnknownModel", "V2Error"]


class V2Error(Exception):
    """Base of what `app.v2` refuses. `extra` are further members of the problem."""

    extra: dict[str, Any]

    def __init__(self, detail: str) -> None:
        super().__init__(detail)
        self.extra = {}


class BadRequest(V2Error):  # noqa: N818  (the three name what happened)
    """Raised for a message or a tensor that cannot be taken; the text says which and why."""


class UnknownModel(V2Error):  # noqa: N818
    """Raised for the name or version of a model that is not served here."""


class RejectedRows(V2Error):  # noqa: N818
    """Raised in enforce mode for a batch in which the firewall rejected some `rows`."""

    def __init__(self, rows: Sequence[int], of: int) -> None:
        few = ", ".join(map(str, rows[:20])) + (", ..." if len(rows) > 20 else "")
        super().__init__(
            f"rejected by the firewall: {'row' if len(rows) == 1 else 'rows'} {few} of {of}. Send the others "
            'alone, or set the request parameter "partial" to true: rejected rows then have the label -1'
        )
        self.extra = {"rows": list(rows)}
