"""Names for threads that the kernel shows too: in `top -H`, in /proc, in a profiler."""

import contextlib
import threading
from pathlib import Path

__all__ = ["name_this_thread"]

MOST = 15  # characters that Linux keeps


def name_this_thread(name: str) -> None:
    """Call the running thread `name`. Where the kernel takes no names, only Python knows it."""
    threading.current_thread().name = name
    with contextlib.suppress(OSError):
        comm = Path(f"/proc/self/task/{threading.get_native_id()}/comm")
        comm.write_text(name[:MOST], encoding="ascii", errors="replace")
