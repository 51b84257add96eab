"""A zip of benign images in class-per-folder layout, read entry by entry and never unpacked to disk.

An archive is a program for its reader, written by somebody else: names that point elsewhere, links,
entries that expand a thousandfold. Everything its directory claims is checked before the first entry
is read, and each entry's bytes are counted as they come.
"""

import stat
import zipfile
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import PurePosixPath
from typing import BinaryIO

__all__ = ["Archive", "ArchiveError", "Entry"]

END_RECORD, ZIP64_LOCATOR, ZIP64_END_RECORD = b"PK\x05\x06", b"PK\x06\x07", b"PK\x06\x06"
END_RECORD_BYTES, ZIP64_LOCATOR_BYTES, ZIP64_END_RECORD_BYTES, LONGEST_COMMENT = 22, 20, 56, 65_535
DIRECTORY_BYTES_PER_ENTRY = 1024  # 46 and the name; generous, so that only absurd directories fail
ENCRYPTED = 0x1
COMPRESSIONS = (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED)


class ArchiveError(Exception):
    """Raised for an archive that is not taken; `part` names the entry at fault."""

    def __init__(self, detail: str, part: str | None = None) -> None:
        super().__init__(detail)
        self.part = part


@dataclass(frozen=True)
class Entry:
    """One image: its name in the archive, for messages; its class; its encoded bytes."""

    name: str
    label: int
    data: bytes


class Archive:
    """The images of one archive; `len()` is their number.

    Folders give the class: in `train/stop/1.png` it is `stop`, which `label_of(text, entry)` turns into
    an index. Directories, `__MACOSX` and hidden files are passed over.
    """

    def __init__(
        self,
        file: BinaryIO,
        label_of: Callable[[str, str], int],
        *,
        max_entries: int,
        max_bytes: int,
        max_entry_bytes: int,
    ) -> None:
        """Check the directory of the zip in `file` (seekable). Raises `ArchiveError`."""
        _check_directory_size(file, max_entries)
        try:
            self._zip = zipfile.ZipFile(file)
        except (zipfile.BadZipFile, OSError, ValueError, NotImplementedError) as error:
            raise ArchiveError("the archive is not a readable zip file") from error
        members = self._zip.infolist()
        if len(members) > max_entries:
            raise ArchiveError(f"the archive has {len(members)} entries; at most {max_entries} are taken")
        self._max_entry_bytes = max_entry_bytes
        for member in members:
            self._check(member)
        if sum(member.file_size for member in members) > max_bytes:
            raise ArchiveError(f"the archive expands to more than {max_bytes} bytes")
        images = [member for member in members if not _passed_over(member)]
        self._images = _in_turn([(each, label_of(_folder(each), each.filename)) for each in images])

    def __len__(self) -> int:
        return len(self._images)

    def __iter__(self) -> Iterator[Entry]:
        """The images one by one, class by class in turn, so that the first ones are of all classes; only
        one is in memory at a time. Raises `ArchiveError`."""
        for member, label in self._images:
            yield Entry(member.filename, label, self._read(member))

    def _check(self, member: zipfile.ZipInfo) -> None:
        name = member.filename
        # `orig_filename` is what the archive says; zipfile has already cut `filename` at a NUL.
        if "\\" in member.orig_filename or "\0" in member.orig_filename or ":" in name.split("/")[0]:
            raise ArchiveError(f"the entry {name!r} has a name that is not portable", name)
        if name.startswith("/") or ".." in PurePosixPath(name).parts:
            raise ArchiveError(f"the entry {name!r} points outside the archive", name)
        kind = stat.S_IFMT(member.external_attr >> 16)
        if kind not in (0, stat.S_IFREG, stat.S_IFDIR):
            raise ArchiveError(f"the entry {name!r} is a link or a device, not a file", name)
        if member.flag_bits & ENCRYPTED:
            raise ArchiveError(f"the entry {name!r} is encrypted", name)
        if member.compress_type not in COMPRESSIONS:
            raise ArchiveError(f"the entry {name!r} is not stored or deflated", name)
        if member.file_size > self._max_entry_bytes:
            raise ArchiveError(f"the entry {name!r} has more than {self._max_entry_bytes} bytes", name)

    def _read(self, member: zipfile.ZipInfo) -> bytes:
        try:
            with self._zip.open(member) as stream:
                data = stream.read(self._max_entry_bytes + 1)
                # A stream that is cut off at its declared size has its checksum compared only at the
                # next read; a wrong one means that the directory lied.
                if stream.read(1) or len(data) != member.file_size:
                    raise ArchiveError(f"the entry {member.filename!r} lies about its size", member.filename)
                return data
        except ArchiveError:
            raise
        except Exception as error:  # zipfile and zlib raise many kinds on corrupt entries
            raise ArchiveError(f"the entry {member.filename!r} is corrupt", member.filename) from error


def _check_directory_size(file: BinaryIO, max_entries: int) -> None:
    """Raise `ArchiveError` for a directory too large to be read into memory, before zipfile reads it."""
    size = file.seek(0, 2)
    start = max(0, size - END_RECORD_BYTES - LONGEST_COMMENT - ZIP64_LOCATOR_BYTES - ZIP64_END_RECORD_BYTES)
    file.seek(start)
    tail = file.read()
    file.seek(0)
    position = tail.rfind(END_RECORD)
    if position < 0 or position + END_RECORD_BYTES > len(tail):
        raise ArchiveError("the archive is not a readable zip file")
    directory = int.from_bytes(tail[position + 12 : position + 16], "little")
    locator = position - ZIP64_LOCATOR_BYTES
    if locator >= 0 and tail[locator:position].startswith(ZIP64_LOCATOR):
        directory = _zip64_directory_size(tail, locator)
    if directory > max_entries * DIRECTORY_BYTES_PER_ENTRY:
        raise ArchiveError(f"the archive has more than {max_entries} entries")


def _zip64_directory_size(tail: bytes, locator: int) -> int:
    """As zipfile reads it (APPNOTE 4.3.14): from the record just before its locator, and no other place."""
    record = tail[max(0, locator - ZIP64_END_RECORD_BYTES) : locator]
    if len(record) < ZIP64_END_RECORD_BYTES or not record.startswith(ZIP64_END_RECORD):
        raise ArchiveError("the archive is not a readable zip file")
    return int.from_bytes(record[40:48], "little")


def _passed_over(member: zipfile.ZipInfo) -> bool:
    parts = PurePosixPath(member.filename).parts
    return member.is_dir() or any(part.startswith(".") or part == "__MACOSX" for part in parts)


def _in_turn(images: list[tuple[zipfile.ZipInfo, int]]) -> list[tuple[zipfile.ZipInfo, int]]:
    """The first image of every class, then the second of every class, and so on."""
    turns = Counter[int]()
    keyed = []
    for member, label in images:
        keyed.append((turns[label], member, label))
        turns[label] += 1
    return [(member, label) for _, member, label in sorted(keyed, key=lambda each: each[0])]


def _folder(member: zipfile.ZipInfo) -> str:
    parts = PurePosixPath(member.filename).parts
    if len(parts) < 2:
        raise ArchiveError(
            f"the entry {member.filename!r} lies in no folder; the folder names the class", member.filename
        )
    return parts[-2]
