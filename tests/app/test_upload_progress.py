"""What is shown while a calibration is under way is what the gateway says."""

import threading
from io import StringIO
from typing import Any, Self

import pytest
from rich.console import Console
from rich.progress import Progress

from app import upload_progress
from app.client import ClientError


class Answers:
    """A gateway that answers /info in turn, and ends the watch after its last answer."""

    def __init__(self, ended: threading.Event, progress: Progress, *answers: Any) -> None:
        self.ended, self.progress, self.answers = ended, progress, list(answers)
        self.seen: list[tuple[str, float, float | None]] = []

    def __call__(self, url: str, key: str | None) -> Self:
        return self

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        pass

    def info(self) -> dict[str, Any]:
        task = self.progress.tasks[0]
        self.seen.append((task.description, task.completed, task.total))
        answer = self.answers.pop(0)
        if not self.answers:
            self.ended.set()
        if isinstance(answer, Exception):
            raise answer
        return {"calibrating": answer}


def test_it_follows_the_gateway(monkeypatch: pytest.MonkeyPatch) -> None:
    ended, progress = threading.Event(), Progress(console=Console(file=StringIO()))
    bar = progress.add_task("sending", total=100)
    stages = [("receiving", 0, None), ("measuring", 64, 200), ("measuring", 128, 200), ("fitting", 200, 200)]
    told = [dict(zip(("stage", "done", "total"), stage, strict=True)) for stage in stages]
    gateway = Answers(ended, progress, None, told[0], told[1], ClientError("busy"), *told[2:], None)
    monkeypatch.setattr(upload_progress, "GatewayClient", gateway)
    monkeypatch.setattr(upload_progress, "EVERY_S", 0.0)
    upload_progress._watch("http://gateway", None, progress, bar, ended)
    assert gateway.seen == [
        ("sending", 0, 100),
        ("sending", 0, 100),
        ("sending", 0, 100),
        ("measuring 64 of 200", 64, 200),
        ("measuring 64 of 200", 64, 200),
        ("measuring 128 of 200", 128, 200),
        ("fitting the detectors", 200, 200),
    ]


def test_bytes_sent_are_counted() -> None:
    with upload_progress.upload_progress("http://127.0.0.1:9", None) as started:
        advance = started(2_000_000)
        advance(500_000)
    advance(1)  # a late step of a request that was broken off is no error
