"""Multipart bodies: every way to cut them into chunks gives the same parts."""

import asyncio
import io
import itertools
import zipfile
from collections.abc import AsyncIterator

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from app import forms
from app.forms import Form, FormError, TooManyParts, read_form

KIND = "multipart/form-data; boundary=xyz"


def body(*parts: tuple[str, bytes]) -> bytes:
    heads = [
        f'--xyz\r\nContent-Disposition: form-data; name="{name}"; filename="f{n}"\r\n'
        "Content-Type: Image/PNG; q=1\r\n\r\n"
        for n, (name, _) in enumerate(parts)
    ]
    return b"".join(h.encode() + d + b"\r\n" for h, (_, d) in zip(heads, parts, strict=True)) + b"--xyz--\r\n"


def read(
    data: bytes, cuts: tuple[int, ...] = (), kind: str = KIND, max_parts: int = 100, **limits: int
) -> Form:
    async def chunks() -> AsyncIterator[bytes]:
        edges = [0, *sorted(cut for cut in cuts if cut < len(data)), len(data)]
        for begin, end in itertools.pairwise(edges):
            yield data[begin:end]

    return asyncio.run(read_form(kind, chunks(), max_parts=max_parts, limits=limits))


@settings(max_examples=80, deadline=None)
@given(
    st.lists(st.tuples(st.sampled_from(["images", "labels"]), st.binary(max_size=60)), max_size=6),
    st.lists(st.integers(0, 600), max_size=12),
    st.sampled_from([8, 1 << 20]),
)
def test_parts_come_back_as_they_were_sent(
    parts: list[tuple[str, bytes]], cuts: list[int], spool: int
) -> None:
    """In memory and on disk alike."""
    if any(b"--xyz" in data for _, data in parts) or not parts:
        return
    before, forms.SPOOL_BYTES = forms.SPOOL_BYTES, spool
    try:
        with read(body(*parts), tuple(cuts)) as form:
            assert [(part.field, form.read(part)) for part in form.parts] == parts
            assert [part.filename for part in form.parts] == [f"f{n}" for n in range(len(parts))]
            assert {part.content_type for part in form.parts} == {"image/png"}
            assert [form.read(part) for part in form.named("images")] == [
                d for n, d in parts if n == "images"
            ]
    finally:
        forms.SPOOL_BYTES = before


def test_a_part_can_be_read_as_a_file() -> None:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as archive:
        archive.writestr("a", b"A" * 1000)
    with read(body(("images", b"before"), ("archive", buffer.getvalue()), ("labels", b"after"))) as form:
        with zipfile.ZipFile(form.open(form.named("archive")[0])) as archive:
            assert archive.read("a") == b"A" * 1000
        file = form.open(form.parts[0])
        assert (file.seek(-3, io.SEEK_END), file.read(), file.read()) == (3, b"ore", b"")
        assert (file.seek(1), file.read(2), file.seek(1, io.SEEK_CUR), file.read()) == (1, b"ef", 4, b"re")


def test_ten_thousand_parts_need_one_file() -> None:
    with read(body(*[("images", b"x" * 200)] * 10_000), max_parts=10_000) as form:
        assert len(form.parts) == 10_000
        assert form.read(form.parts[-1]) == b"x" * 200


def test_limits() -> None:
    two = body(("images", b"1"), ("labels", b"2"))
    read(two, max_parts=2, images=1).__exit__(None, None, None)
    with pytest.raises(TooManyParts, match="more than 1 parts"):
        read(two, max_parts=1)
    with pytest.raises(TooManyParts, match="more than 1 parts named images") as caught:
        read(body(("images", b"1"), ("images", b"2")), images=1)
    assert caught.value.part == "images"


@pytest.mark.parametrize(
    ("data", "kind"),
    [
        (b"", KIND),
        (body(("images", b"x"))[:-10], KIND),
        (b"--abc\r\n\r\n--abc--", KIND),
        (body(("images", b"x")), "multipart/form-data"),
        (body(("images", b"x")), "multipart/form-data; boundary=" + "b" * 300),
        (b'--xyz\r\nContent-Disposition: attachment; name="a"\r\n\r\nx\r\n--xyz--\r\n', KIND),
        (b"--xyz\r\n" + b"X: " + b"y" * 100_000 + b"\r\n\r\n\r\n--xyz--\r\n", KIND),
    ],
)
def test_what_is_no_form(data: bytes, kind: str) -> None:
    with pytest.raises(FormError):
        read(data, kind=kind)


def test_text_fields() -> None:
    with read(body(("alpha", b" 0.05 "), ("alpha", b"\xff"), ("alpha", b"1" * 5000))) as form:
        assert form.text(form.parts[0]) == "0.05"
        for part in form.parts[1:]:
            with pytest.raises(FormError):
                form.text(part)
