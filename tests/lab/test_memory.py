import platform

from lab.memory import keep_freed_memory


def test_glibc_accepts_every_setting() -> None:
    assert keep_freed_memory() == (platform.libc_ver()[0] == "glibc")
