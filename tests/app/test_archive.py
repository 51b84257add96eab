"""Archives: the layout that is taken, and everything an archive can try."""

import io
import stat
import struct
import zipfile

import pytest

from app.archive import Archive, ArchiveError
from app.labels import LabelError, Labels

LABELS = Labels(["dot", "line"], 2)


def build(*entries: tuple[str | zipfile.ZipInfo, bytes], compression: int = zipfile.ZIP_DEFLATED) -> bytes:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", compression) as archive:
        for name, data in entries:
            archive.writestr(name, data, compression)
    return buffer.getvalue()


def open_archive(data: bytes, *, entries: int = 10, expanded: int = 10_000, entry: int = 5_000) -> Archive:
    return Archive(
        io.BytesIO(data), LABELS.index, max_entries=entries, max_bytes=expanded, max_entry_bytes=entry
    )


def test_the_last_folder_names_the_class() -> None:
    data = build(
        ("dot/a.png", b"A"), ("deep/er/line/b.png", b"BB"), ("1/c.png", b""), ("dot/", b""),
        ("__MACOSX/dot/._a.png", b"x"), (".git/x", b"x"), ("dot/.hidden", b"x"),
    )  # fmt: skip
    archive = open_archive(data)
    assert len(archive) == 3
    assert [(e.name, e.label, e.data) for e in archive] == [
        ("dot/a.png", 0, b"A"),
        ("deep/er/line/b.png", 1, b"BB"),
        ("1/c.png", 1, b""),
    ]


def link() -> zipfile.ZipInfo:
    info = zipfile.ZipInfo("dot/link.png")
    info.external_attr = (stat.S_IFLNK | 0o777) << 16
    return info


def device() -> zipfile.ZipInfo:
    info = zipfile.ZipInfo("dot/device.png")
    info.external_attr = (stat.S_IFCHR | 0o666) << 16
    return info


@pytest.mark.parametrize(
    ("data", "words"),
    [
        (b"", "not a readable zip"),
        (b"PK\x05\x06", "not a readable zip"),
        (b"nonsense" * 100, "not a readable zip"),
        (build(("dot/a", b"A"))[:-30], "not a readable zip"),
        (build(("../dot/a.png", b"x")), "points outside"),
        (build(("dot/../../a.png", b"x")), "points outside"),
        (build(("/dot/a.png", b"x")), "points outside"),
        (build(("dot\\..\\a.png", b"x")), "not portable"),
        (build(("C:/dot/a.png", b"x")), "not portable"),
        (build((link(), b"/etc/passwd")), "link or a device"),
        (build((device(), b"")), "link or a device"),
        (build(("a.png", b"x")), "lies in no folder"),
        (build(("dot/a.png", b"x"), compression=zipfile.ZIP_LZMA), "not stored or deflated"),
        (build(("dot/a.png", b"x"), compression=zipfile.ZIP_BZIP2), "not stored or deflated"),
        (build(*((f"dot/{n}", b"x") for n in range(11))), "at most 10"),
        (build(("dot/a.png", bytes(5_001))), "more than 5000 bytes"),
        (build(*((f"dot/{n}", bytes(4_000)) for n in range(3))), "expands to more than 10000"),
    ],
    ids=lambda value: (
        value if isinstance(value, str) else "zip"
    ),  # its bytes hold the time: never the same twice
)
def test_what_is_refused_before_anything_is_read(data: bytes, words: str) -> None:
    with pytest.raises(ArchiveError, match=words):
        open_archive(data)


def test_a_folder_that_is_no_class() -> None:
    with pytest.raises(LabelError) as caught:
        open_archive(build(("dot/a", b"x"), ("square/b.png", b"x")))
    assert caught.value.part == "square/b.png"


def patched_sizes(claimed: int) -> bytes:
    """An entry of 4000 bytes whose headers claim another size."""
    data = bytearray(build(("dot/a.png", bytes(4000))))
    central = data.index(b"PK\x01\x02")
    for position in (22, central + 24):
        data[position : position + 4] = claimed.to_bytes(4, "little")
    return bytes(data)


@pytest.mark.parametrize("claimed", [0, 10, 3999, 4001])
def test_an_entry_that_lies_about_its_size(claimed: int) -> None:
    with pytest.raises(ArchiveError, match=r"corrupt|lies") as caught:
        list(open_archive(patched_sizes(claimed)))
    assert caught.value.part == "dot/a.png"


def test_a_corrupt_entry_comes_after_the_good_ones() -> None:
    data = bytearray(
        build(("dot/a.png", b"A" * 100), ("dot/b.png", b"B" * 100), compression=zipfile.ZIP_STORED)
    )
    data[data.index(b"BBB")] ^= 1
    entries = iter(open_archive(bytes(data)))
    assert next(entries).data == b"A" * 100
    with pytest.raises(ArchiveError, match="corrupt"):
        next(entries)


def test_a_directory_too_large_for_memory_is_not_loaded() -> None:
    """The end record promises a directory of 3 GB; zipfile would try to read it."""
    data = bytearray(build(("dot/a.png", b"x")))
    end = data.rindex(b"PK\x05\x06")
    data[end + 12 : end + 16] = (3_000_000_000).to_bytes(4, "little")
    with pytest.raises(ArchiveError, match="more than 10 entries"):
        open_archive(bytes(data))


def zip64(directory: int | None = None) -> bytes:
    """An archive that ends as those of more than 65,535 entries do; it may claim another directory's size."""
    data = build(("dot/a.png", b"A"), ("line/b.png", b"B"))
    end = data.rindex(b"PK\x05\x06")
    entries, size, offset = struct.unpack("<8xHHLL2x", data[end:])[1:]
    record = struct.pack(
        "<4sQ2H2L4Q", b"PK\x06\x06", 44, 45, 45, 0, 0, entries, entries, directory or size, offset
    )
    locator = struct.pack("<4sLQL", b"PK\x06\x07", 0, end, 1)
    last = struct.pack("<4s4H2LH", b"PK\x05\x06", 0, 0, 0xFFFF, 0xFFFF, 0xFFFFFFFF, 0xFFFFFFFF, 0)
    return data[:end] + record + locator + last


def test_zip64() -> None:
    assert [entry.data for entry in open_archive(zip64())] == [b"A", b"B"]


def test_a_zip64_directory_too_large_for_memory_is_not_loaded() -> None:
    with pytest.raises(ArchiveError, match="more than 10 entries"):
        open_archive(zip64(directory=2**40))


def test_a_zip64_locator_without_its_record() -> None:
    data = build(("dot/a.png", b"x"))
    end = data.rindex(b"PK\x05\x06")
    with pytest.raises(ArchiveError, match="not a readable zip"):
        open_archive(data[:end] + b"PK\x06\x07" + bytes(16) + data[end:])


def test_an_encrypted_entry() -> None:
    data = bytearray(build(("dot/a.png", b"x")))
    central = data.index(b"PK\x01\x02")
    data[6] |= 1
    data[central + 8] |= 1
    with pytest.raises(ArchiveError, match="encrypted"):
        open_archive(bytes(data))


def test_a_comment_and_leading_bytes_do_no_harm() -> None:
    buffer = io.BytesIO(build(("dot/a.png", b"A")))
    with zipfile.ZipFile(buffer, "a") as archive:
        archive.comment = b"c" * 1000
    assert [entry.data for entry in open_archive(b"self-extracting stub" + buffer.getvalue())] == [b"A"]


def test_labels_are_names_first_then_indices() -> None:
    digits = Labels(["1", "2", "3"], 3)
    assert [digits.index(text) for text in ("1", "3", "0")] == [0, 2, 0]
    assert Labels(None, 3).index("2") == 2
    for text in ("3", "-1", "1.0", "", "²", "one", "9" * 30):
        with pytest.raises(LabelError, match="an index from 0 to 2"):
            Labels(None, 3).index(text)


def test_classes_take_turns_so_that_the_first_images_are_of_all_of_them() -> None:
    data = build(
        ("dot/a.png", b"1"), ("dot/b.png", b"2"), ("dot/c.png", b"3"), ("1/d.png", b"4"), ("1/e.png", b"5")
    )
    assert [e.data for e in open_archive(data)] == [b"1", b"4", b"2", b"5", b"3"]
