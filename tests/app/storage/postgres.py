"""A private PostgreSQL server for tests: in a folder of its own, reached by a socket in it alone."""

import getpass
import os
import pwd
import shutil
import subprocess
import tempfile
from pathlib import Path
from typing import Any, Self

import psycopg

__all__ = ["Postgres", "missing"]


def _programs() -> Path | None:
    """Where Debian's `postgresql` package puts the server; None where it is not installed."""
    found = sorted(Path("/usr/lib/postgresql").glob("*/bin/initdb"), key=lambda path: int(path.parts[4]))
    if found:
        return found[-1].parent
    named = shutil.which("initdb")
    return Path(named).resolve().parent if named else None


def _owner() -> str | None:
    """Who runs it: PostgreSQL refuses to run as root. None where there is nobody."""
    if os.geteuid() != 0:
        return getpass.getuser()
    for name in ("postgres", "nobody"):
        try:
            return pwd.getpwnam(name).pw_name
        except KeyError:
            continue
    return None


def missing() -> str | None:
    """Why there can be no server here; None where there can."""
    if _programs() is None:
        return "PostgreSQL is not installed (Debian: apt-get install postgresql)"
    return None if _owner() else "PostgreSQL does not run as root, and there is no other user"


class Postgres:
    """Runs within its `with` block; `create` gives the URL of a new, empty database."""

    def __enter__(self) -> Self:
        programs, self.owner = _programs(), _owner()
        assert programs is not None
        assert self.owner is not None
        self.programs, self.count = programs, 0
        self.folder = Path(tempfile.mkdtemp(prefix="pg-"))
        if os.geteuid() == 0:
            shutil.chown(self.folder, self.owner)
        self._run("initdb", "--pgdata", self.folder / "data", "--auth=trust", "--no-sync", "--username=tests")
        self.start()
        return self

    def start(self) -> None:
        """Also after `stop`: what was committed is there again."""
        options = f"-k {self.folder} -c listen_addresses='' -c fsync=off -c max_connections=50"
        log = ("--log", self.folder / "log")
        self._run("pg_ctl", "start", "--wait", "--pgdata", self.folder / "data", *log, "--options", options)

    def create(self) -> str:
        """A schema of its own in one database: quicker than a database, and as empty."""
        self.count += 1
        place = f"postgresql://tests@/postgres?host={self.folder}"
        with psycopg.connect(place) as connection:
            connection.execute(f"CREATE SCHEMA test{self.count}")
        return f"{place}&options=-csearch_path%3Dtest{self.count}"

    def stop(self) -> None:
        """As if it had crashed."""
        self._run("pg_ctl", "stop", "--mode=immediate", "--wait", "--pgdata", self.folder / "data")

    def __exit__(self, *_: object) -> None:
        self.stop()
        shutil.rmtree(self.folder, ignore_errors=True)

    def _run(self, program: str, *arguments: Any) -> None:
        user: dict[str, Any] = {"user": self.owner} if os.geteuid() == 0 else {}
        subprocess.run(
            [self.programs / program, *map(str, arguments)], check=True, stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL, cwd="/", **user,
        )  # fmt: skip
