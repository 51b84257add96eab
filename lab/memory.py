"""Keep freed memory instead of giving it back to the system after every layer.

The C library returns large blocks at once and takes them anew for the next layer, each page filled with
zeros by the kernel: on a CPU that costs networks on small images up to half of their time.
"""

import ctypes
import sys

__all__ = ["keep_freed_memory"]

TRIM_THRESHOLD, TOP_PAD, MMAP_THRESHOLD = -1, -2, -3  # of mallopt(3)
LARGEST_BLOCK = 1 << 30
MOST_KEPT = (1 << 31) - 1
GROWTH = 1 << 26


def keep_freed_memory() -> bool:
    """For the rest of this process; false where the C library knows no such thing (not glibc)."""
    if not sys.platform.startswith("linux"):
        return False
    try:
        mallopt = ctypes.CDLL(None).mallopt
    except (AttributeError, OSError):
        return False
    wanted = ((MMAP_THRESHOLD, LARGEST_BLOCK), (TRIM_THRESHOLD, MOST_KEPT), (TOP_PAD, GROWTH))
    answers = [mallopt(name, value) for name, value in wanted]  # all of them, whatever the first says
    return answers == [1, 1, 1]
