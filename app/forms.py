"""A multipart/form-data body → its parts, in one spooled file, however many parts there are.

A file per part would need a file descriptor, or a megabyte of memory, for each of ten thousand
calibration images; here the parts lie one behind the other and are read back one at a time.
"""

import asyncio
import errno
import io
import tempfile
import threading
from collections import Counter
from collections.abc import AsyncIterator
from dataclasses import dataclass
from types import TracebackType
from typing import Self

from python_multipart.exceptions import FormParserError
from python_multipart.multipart import MultipartParser, parse_options_header

__all__ = ["Form", "FormError", "NoRoom", "Part", "TooManyParts", "read_form"]

SPOOL_BYTES = 1024 * 1024  # up to here a form stays in memory
MAX_FIELD_BYTES = 4096  # a text field: a label, or alpha
MAX_HEADERS = 8  # of one part; two say all there is to say
MAX_HEADER_BYTES = 4096
MAX_NAME = 200  # characters of a file name that are kept, for messages


class FormError(Exception):
    """Raised for a body that is not the form it says it is; `part` names the part at fault."""

    def __init__(self, detail: str, part: str | None = None) -> None:
        super().__init__(detail)
        self.part = part


class TooManyParts(FormError):  # noqa: N818  (it names what is wrong)
    """Raised for more parts than allowed, before the rest is read."""


class NoRoom(FormError):  # noqa: N818
    """Raised where the disk is full: the body cannot be kept while it is read."""


@dataclass
class Part:
    """One part: `field` is its form name, `filename` the client's, for messages only."""

    field: str
    filename: str | None
    content_type: str | None
    offset: int
    size: int = 0


class Form:
    """The parts of one body, in order, and the file that holds them. Any thread may read."""

    def __init__(self) -> None:
        self.parts: list[Part] = []
        self._file = tempfile.SpooledTemporaryFile(max_size=SPOOL_BYTES)  # noqa: SIM115  (closed by __exit__)
        self._lock = threading.Lock()
        self._end = 0

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._file.close()

    def named(self, field: str) -> list[Part]:
        """The parts of the form field `field`, in order."""
        return [part for part in self.parts if part.field == field]

    def append(self, part: Part, data: bytes) -> None:
        """Write `data` behind everything; it belongs to `part`, the last one."""
        with self._lock:
            self._file.seek(self._end)
            self._file.write(data)
        self._end += len(data)
        part.size += len(data)

    def read_at(self, offset: int, size: int) -> bytes:
        with self._lock:
            self._file.seek(offset)
            return self._file.read(size)

    def read(self, part: Part) -> bytes:
        """All bytes of `part`."""
        return self.read_at(part.offset, part.size)

    def text(self, part: Part) -> str:
        """`part` as a short text. Raises `FormError`."""
        if part.size > MAX_FIELD_BYTES:
            raise FormError(f"the field {part.field} is longer than {MAX_FIELD_BYTES} bytes", part.field)
        try:
            return self.read(part).decode().strip()
        except UnicodeDecodeError:
            raise FormError(f"the field {part.field} is not UTF-8 text", part.field) from None

    def open(self, part: Part) -> io.BufferedReader:
        """`part` as a seekable binary file."""
        return io.BufferedReader(_Window(self, part))


class _Window(io.RawIOBase):
    """One part, seen as a file of its own."""

    def __init__(self, form: Form, part: Part) -> None:
        self._form, self._part, self._position = form, part, 0

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def seek(self, offset: int, whence: int = io.SEEK_SET) -> int:
        start = {io.SEEK_SET: 0, io.SEEK_CUR: self._position, io.SEEK_END: self._part.size}[whence]
        if start + offset < 0:
            raise OSError("negative seek position")
        self._position = start + offset
        return self._position

    def readinto(self, buffer: "bytearray | memoryview") -> int:  # type: ignore[override]
        left = max(0, self._part.size - self._position)
        data = self._form.read_at(self._part.offset + self._position, min(len(buffer), left))
        buffer[: len(data)] = data
        self._position += len(data)
        return len(data)


class _Assembler:
    """The parser's callbacks. Data is gathered per chunk of the body, so that writing can leave the
    event loop."""

    def __init__(self, form: Form, max_parts: int, limits: dict[str, int]) -> None:
        self.form, self.max_parts, self.limits = form, max_parts, limits
        self.pending: list[tuple[Part, bytes]] = []
        self.finished = False
        self._size = 0
        self._counts: Counter[str] = Counter()
        self._headers: dict[bytes, bytes] = {}
        self._name, self._value = bytearray(), bytearray()

    def on_part_begin(self) -> None:
        if len(self.form.parts) >= self.max_parts:
            raise TooManyParts(f"the form has more than {self.max_parts} parts")
        self._headers = {}

    def on_header_field(self, data: bytes, start: int, end: int) -> None:
        self._name += data[start:end]

    def on_header_value(self, data: bytes, start: int, end: int) -> None:
        self._value += data[start:end]

    def on_header_end(self) -> None:
        self._headers[bytes(self._name).lower()] = bytes(self._value)
        self._name, self._value = bytearray(), bytearray()

    def on_headers_finished(self) -> None:
        disposition, options = parse_options_header(self._headers.get(b"content-disposition", b""))
        field = options.get(b"name", b"").decode(errors="replace")
        number = len(self.form.parts)
        if disposition != b"form-data" or not field:
            raise FormError(f"part {number} has no form name", str(number))
        filename = options.get(b"filename")
        kind = self._headers.get(b"content-type")
        part = Part(
            field,
            filename.decode(errors="replace")[:MAX_NAME] if filename is not None else None,
            kind.decode(errors="replace").partition(";")[0].strip().lower() if kind is not None else None,
            self._size,
        )
        self.form.parts.append(part)
        self._counts[field] += 1
        if self._counts[field] > self.limits.get(field, self.max_parts):
            raise TooManyParts(f"the form has more than {self.limits[field]} parts named {field}", field)

    def on_part_data(self, data: bytes, start: int, end: int) -> None:
        self._size += end - start
        self.pending.append((self.form.parts[-1], data[start:end]))

    def on_end(self) -> None:
        self.finished = True

    @property
    def on_disk(self) -> bool:
        """True where writing may block: the form has outgrown memory."""
        return self._size > SPOOL_BYTES

    def write(self) -> None:
        for part, data in self.pending:
            self.form.append(part, data)
        self.pending.clear()


async def read_form(
    content_type: str,
    body: AsyncIterator[bytes],
    *,
    max_parts: int,
    limits: dict[str, int],
    max_header_bytes: int = MAX_HEADER_BYTES,
) -> Form:
    """Read a multipart `body` to its end; `limits` bounds the number of parts by form field, and
    `max_header_bytes` each header of a part, of which there are at most `MAX_HEADERS`.

    The caller closes the form (`with`). Raises `FormError`.
    """
    _, options = parse_options_header(content_type)
    boundary = options.get(b"boundary")
    if not boundary:
        raise FormError("the Content-Type of a form must name its boundary")
    form = Form()
    try:
        assembler = _Assembler(form, max_parts, limits)
        parser = MultipartParser(
            boundary,
            {
                "on_part_begin": assembler.on_part_begin,
                "on_header_field": assembler.on_header_field,
                "on_header_value": assembler.on_header_value,
                "on_header_end": assembler.on_header_end,
                "on_headers_finished": assembler.on_headers_finished,
                "on_part_data": assembler.on_part_data,
                "on_end": assembler.on_end,
            },
            max_header_count=MAX_HEADERS,
            max_header_size=max_header_bytes,
        )
        async for chunk in body:
            parser.write(chunk)
            if assembler.on_disk:
                await asyncio.to_thread(assembler.write)
            else:
                assembler.write()
        if not assembler.finished:
            raise FormError("the form ends before its last boundary")
    except FormParserError as error:
        form.__exit__(None, None, None)
        raise FormError("the body is not well-formed multipart/form-data") from error
    except OSError as error:
        form.__exit__(None, None, None)
        if error.errno not in (errno.ENOSPC, errno.EDQUOT):
            raise
        raise NoRoom("the disk for temporary files is full: free some of it, and send again") from error
    except BaseException:
        form.__exit__(None, None, None)
        raise
    return form
