"""Which request the running code works for: for logs, and for what is recorded of it."""

from contextvars import ContextVar

__all__ = ["request_id"]

request_id: ContextVar[str] = ContextVar("request_id", default="")
"""The id of the request being answered; empty outside of one."""
