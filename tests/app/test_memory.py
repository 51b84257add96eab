"""Freed memory goes back while the gateway runs, and not after."""

import asyncio
import re
import sys
from pathlib import Path

import pytest

from app.memory import trimming


def resident() -> int:
    """KiB of this process's own memory."""
    found = re.search(r"RssAnon:\s+(\d+)", Path("/proc/self/status").read_text())
    assert found is not None
    return int(found[1])


def test_it_is_given_back_again_and_again_until_the_end() -> None:
    loops: list[object] = []

    async def run() -> None:
        async with trimming(0.01, lambda: loops.append(asyncio._get_running_loop())):
            await asyncio.sleep(0.2)
        known = len(loops)
        await asyncio.sleep(0.05)
        assert len(loops) == known > 2

    asyncio.run(run())
    assert set(loops) == {None}  # beside the event loop


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="reads /proc")
def test_what_malloc_holds_on_to_is_given_back() -> None:
    # Blocks too small to be mapped alone; the last one keeps the heap from shrinking by itself.
    blocks = [bytearray(b"\1") * 100_000 for _ in range(600)]
    last = blocks[-1]
    blocks.clear()
    held = resident()

    async def run() -> None:
        async with trimming(0.01):
            await asyncio.sleep(0.3)

    asyncio.run(run())
    assert len(last) == 100_000
    assert held - resident() > 40_000
