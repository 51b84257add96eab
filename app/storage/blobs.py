"""Where quarantined images lie: a folder, or anything that fsspec reaches (s3://, gs://, ...).

Names are SHA-256 digests in hexadecimal, made here; nothing that a client sends becomes part of a path.
Blocking: call it from a thread.
"""

import os
import re
import tempfile
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, Protocol

from app.storage.errors import StoreError

__all__ = ["BlobError", "Blobs", "Folder", "ObjectStore", "open_blobs"]

NAME = re.compile(r"[0-9a-f]{64}")


class BlobError(StoreError):
    """Raised where an image cannot be written, read or removed; the text names no path."""


class Blobs(Protocol):
    """Images by their digest. Every method raises `BlobError`."""

    def put(self, name: str, data: bytes) -> None:
        """Keep `data`: as a whole, or not at all."""

    def get(self, name: str) -> bytes | None:
        """What was put there; None where nothing is, or no longer."""

    def remove(self, name: str) -> None:
        """Removing what is not there does nothing."""

    def tidy(self, known: Callable[[Sequence[str]], set[str]], before: float) -> int:
        """Remove what was put before the Unix time `before` and is not among those that `known` returns of
        the names it is given: what a process that was killed left. Returns how many; an object store, which
        would have to be listed, is left as it is."""


def open_blobs(url: str | None, directory: Path) -> Blobs:
    """The place that `url` names, a path or an fsspec URL; `quarantine` in `directory` where it is None.

    Nothing is touched yet: a place that cannot be written shows when it is. Raises `StoreError` for a URL
    that needs what is not installed."""
    if url is None:
        return Folder(directory / "quarantine")
    if "://" not in url:
        return Folder(Path(url))
    try:
        import fsspec

        files, root = fsspec.core.url_to_fs(url, use_listings_cache=False)  # others write there, too
    except ImportError as error:
        raise StoreError(
            f"quarantine_url needs a package that is not installed ({error}): "
            "pip install 'triggerwall[s3]', or 'triggerwall[objectstore]' and the one for another kind"
        ) from error
    except (ValueError, OSError) as error:
        raise StoreError(f"quarantine_url cannot be used: {error}") from error
    return ObjectStore(files, root)


class Folder:
    """Files in a folder, spread over 256 subfolders; readable by their owner alone."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def put(self, name: str, data: bytes) -> None:
        target = self._file(name)
        try:
            target.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
            with tempfile.NamedTemporaryFile(dir=target.parent, prefix=".", delete=False) as file:
                try:
                    file.write(data)
                    file.flush()
                    os.fsync(file.fileno())
                    os.replace(file.name, target)
                except BaseException:
                    os.unlink(file.name)
                    raise
        except OSError as error:
            raise BlobError(f"the quarantine's folder cannot be written: {error.strerror}") from error

    def get(self, name: str) -> bytes | None:
        file = self._file(name)
        try:
            return file.read_bytes()
        except FileNotFoundError:
            return None
        except OSError as error:
            raise BlobError(f"the quarantine's folder cannot be read: {error.strerror}") from error

    def remove(self, name: str) -> None:
        try:
            self._file(name).unlink(missing_ok=True)
        except OSError as error:
            raise BlobError(f"the quarantine's folder cannot be changed: {error.strerror}") from error

    def tidy(self, known: Callable[[Sequence[str]], set[str]], before: float) -> int:
        removed = 0
        for folder in sorted(self.path.glob("[0-9a-f][0-9a-f]")):
            try:
                old = [file for file in folder.iterdir() if file.stat().st_mtime < before]
                there = known([file.name for file in old if NAME.fullmatch(file.name)])
                for file in old:
                    if file.name not in there:
                        file.unlink(missing_ok=True)
                        removed += 1
            except OSError as error:
                raise BlobError(f"the quarantine's folder cannot be tidied: {error.strerror}") from error
        return removed

    def _file(self, name: str) -> Path:
        return self.path / _checked(name)[:2] / name


class ObjectStore:
    """Objects below `root` in an fsspec file system."""

    def __init__(self, files: Any, root: str) -> None:
        self.files, self.root = files, root.rstrip("/")

    def put(self, name: str, data: bytes) -> None:
        path = self._path(name)
        try:
            try:
                self.files.pipe_file(path, data)
            except FileNotFoundError:  # where there are folders at all: most stores have none
                self.files.makedirs(path.rpartition("/")[0], exist_ok=True)
                self.files.pipe_file(path, data)
        except Exception as error:  # every file system raises what its own library does
            raise BlobError(f"the quarantine's store cannot be written: {type(error).__name__}") from error

    def get(self, name: str) -> bytes | None:
        path = self._path(name)
        try:
            return bytes(self.files.cat_file(path))
        except FileNotFoundError:
            return None
        except Exception as error:
            raise BlobError(f"the quarantine's store cannot be read: {type(error).__name__}") from error

    def remove(self, name: str) -> None:
        path = self._path(name)
        try:
            self.files.rm_file(path)
        except FileNotFoundError:
            return
        except Exception as error:
            raise BlobError(f"the quarantine's store cannot be changed: {type(error).__name__}") from error

    def tidy(self, known: Callable[[Sequence[str]], set[str]], before: float) -> int:
        return 0

    def _path(self, name: str) -> str:
        return f"{self.root}/{_checked(name)[:2]}/{name}"


def _checked(name: str) -> str:
    if not NAME.fullmatch(name):
        raise BlobError("an image's name is its SHA-256")
    return name
