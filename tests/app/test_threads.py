"""Threads are called in the kernel what they are called in Python."""

import os
import sys
import threading
from pathlib import Path

import pytest

from app.threads import name_this_thread
from bench.gateway.cost import _threads

LINUX = pytest.mark.skipif(not sys.platform.startswith("linux"), reason="needs /proc")


@LINUX
@pytest.mark.parametrize("name", ["brief-test", "averyverylongname"])
def test_the_kernel_knows_it(name: str) -> None:
    found: list[str] = []
    seen: list[list[Path]] = []

    def run() -> None:
        name_this_thread(name)
        found.append(Path(f"/proc/self/task/{threading.get_native_id()}/comm").read_text().strip())
        seen.append(_threads(os.getpid(), name[:15]))
        found.append(threading.current_thread().name)

    thread = threading.Thread(target=run)
    thread.start()
    thread.join()
    assert found == [name[:15], name]
    assert [int(each.name) for each in seen[0]] == [thread.native_id]
