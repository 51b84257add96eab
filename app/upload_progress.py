"""What `triggerwall calibrate` shows while it waits: bytes sent, then images measured."""

import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from rich.progress import BarColumn, Progress, SpinnerColumn, TaskID, TextColumn, TimeElapsedColumn

from app.client import Advance, ClientError, GatewayClient
from app.terminal import errors

__all__ = ["upload_progress"]

EVERY_S = 0.5
MEGABYTE = 1_000_000


@contextmanager
def upload_progress(url: str, key: str | None) -> Iterator[Callable[[int], Advance]]:
    """Gives the function that is told the bytes to send, and gives the one that is told of each step.

    The request that uploads is answered at the very end; how many images are measured is asked of /info
    beside it, and a gateway that does not answer there is no error.
    """
    columns = SpinnerColumn(), TextColumn("{task.description}"), BarColumn(), TimeElapsedColumn()
    ended = threading.Event()
    with Progress(*columns, console=errors, transient=True) as progress:
        bar = progress.add_task("sending", total=None)
        watcher = threading.Thread(target=_watch, args=(url, key, progress, bar, ended), daemon=True)

        def started(total: int) -> Advance:
            progress.update(bar, total=total, description=f"sending {total / MEGABYTE:.1f} MB")
            watcher.start()
            return lambda step: None if ended.is_set() else progress.advance(bar, step)

        try:
            yield started
        finally:
            ended.set()
            if watcher.ident is not None:
                watcher.join()


def _watch(url: str, key: str | None, progress: Progress, bar: TaskID, ended: threading.Event) -> None:
    with GatewayClient(url, key) as gateway:
        while not ended.wait(EVERY_S):
            try:
                found = gateway.info().get("calibrating")
            except ClientError:
                continue
            if found is None or found["stage"] == "receiving":
                continue
            done, total = found["done"], found["total"]
            said = "fitting the detectors" if found["stage"] == "fitting" else f"measuring {done} of {total}"
            progress.update(bar, total=total, completed=done, description=said)
