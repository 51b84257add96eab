"""Image files gone wrong, each with the statuses that may answer it.

A seed file is valid; a mutation does to it what accidents and attackers do. Statuses: 200 it still is an
image, 413 too large, 415 a kind that is not taken, 422 it cannot be read.
"""

import io
import struct
import zlib
from collections.abc import Callable
from dataclasses import dataclass
from functools import cache
from random import Random

import numpy as np
from PIL import Image

__all__ = ["FORMATS", "MAX_PIXELS", "Mutant", "mutant", "seed_file"]

FORMATS = ("PNG", "JPEG", "WEBP", "BMP", "PPM", "GIF", "TIFF")
MAX_PIXELS = 250_000  # the gateway's limit in this run; what lies beyond it is a bomb
ANY = frozenset({200, 413, 415, 422})
OPTIONS: dict[str, tuple[dict[str, object], ...]] = {
    "PNG": ({}, {"optimize": True}),
    "JPEG": ({}, {"progressive": True}, {"quality": 30, "subsampling": 2}),
    "WEBP": ({"lossless": True}, {"quality": 50}),
    "TIFF": ({}, {"compression": "tiff_lzw"}, {"compression": "tiff_deflate"}, {"compression": "jpeg"}),
}
MODES = {
    "PNG": ("L", "RGB", "RGBA", "P", "1", "LA", "I;16"),
    "JPEG": ("L", "RGB", "CMYK"),
    "WEBP": ("RGB", "RGBA"),
    "BMP": ("L", "RGB", "P", "1"),
    "PPM": ("L", "RGB", "1"),
    "GIF": ("P", "L"),
    "TIFF": ("L", "RGB", "RGBA", "CMYK", "I;16", "F"),
}


@dataclass(frozen=True)
class Mutant:
    """`data`, how it came about, and which `statuses` are right for it."""

    name: str
    data: bytes
    statuses: frozenset[int]


def seed_file(format: str, random: Random) -> tuple[bytes, frozenset[int]]:
    """A valid file of `format` in one of its kinds, and what it is answered with."""
    mode = random.choice(MODES[format])
    size = (random.randint(1, 40), random.randint(1, 40))
    pixels = np.random.default_rng(random.getrandbits(32)).integers(0, 256, (size[1], size[0], 4), np.uint8)
    colour = Image.fromarray(pixels)
    if mode in ("I;16", "F"):
        values = (
            pixels[..., 0].astype(np.uint16) * 257 if mode == "I;16" else pixels[..., 0].astype(np.float32)
        )
        image = Image.fromarray(values)
    else:
        image = colour.convert("RGB").convert(mode) if mode not in ("RGBA", "LA") else colour.convert(mode)
    options = dict(random.choice(OPTIONS.get(format, ({},))))
    if options.get("compression") == "jpeg" and mode not in ("L", "RGB"):
        options = {}
    buffer = io.BytesIO()
    image.save(buffer, format, **options)
    return buffer.getvalue(), frozenset({415} if mode == "F" else {200})


def flip_bits(data: bytes, random: Random) -> tuple[bytes, frozenset[int]]:
    changed = bytearray(data)
    for _ in range(random.choice((1, 1, 2, 8, 64))):
        changed[random.randrange(len(changed))] ^= 1 << random.randrange(8)
    return bytes(changed), ANY


def flip_header(data: bytes, random: Random) -> tuple[bytes, frozenset[int]]:
    changed = bytearray(data)
    for _ in range(random.randint(1, 4)):
        changed[random.randrange(min(64, len(changed)))] = random.randrange(256)
    return bytes(changed), ANY


def cut(data: bytes, random: Random) -> tuple[bytes, frozenset[int]]:
    return data[: random.randrange(len(data))], ANY


def cut_to_nothing_much(data: bytes, random: Random) -> tuple[bytes, frozenset[int]]:
    return data[: random.randrange(8)], frozenset({422})


def drop_middle(data: bytes, random: Random) -> tuple[bytes, frozenset[int]]:
    start, end = sorted(random.randrange(len(data) + 1) for _ in range(2))
    return data[:start] + data[end:], ANY


def repeat_middle(data: bytes, random: Random) -> tuple[bytes, frozenset[int]]:
    start, end = sorted(random.randrange(len(data) + 1) for _ in range(2))
    return data[:end] + data[start:end] * random.choice((1, 2, 50)) + data[end:], ANY


def splice(data: bytes, random: Random) -> tuple[bytes, frozenset[int]]:
    """The head of one file on the tail of another, of whatever format."""
    other, _ = seed_file(random.choice(FORMATS), random)
    return data[: random.randrange(len(data))] + other[random.randrange(len(other)) :], ANY


def extreme_number(data: bytes, random: Random) -> tuple[bytes, frozenset[int]]:
    """A field set to an edge: zero, all ones, a sign bit; lengths, sizes and offsets among them."""
    width = random.choice((1, 2, 4))
    value = random.choice((0, 1, 2 ** (8 * width) - 1, 2 ** (8 * width - 1), 2 ** (8 * width - 1) - 1))
    place = random.randrange(max(1, min(128, len(data) - width)))
    number = value.to_bytes(width, random.choice(("little", "big")))
    return data[:place] + number + data[place + width :], ANY


def noise(_: bytes, random: Random) -> tuple[bytes, frozenset[int]]:
    return random.randbytes(random.randrange(1, 4000)), frozenset({422})


def noise_after_magic(data: bytes, random: Random) -> tuple[bytes, frozenset[int]]:
    return data[: random.choice((2, 4, 8, 12))] + random.randbytes(random.randrange(4000)), ANY


def append(data: bytes, random: Random) -> tuple[bytes, frozenset[int]]:
    """A polyglot: an image that is a zip, a page or a script for who reads it from the other end."""
    tail = random.choice(
        (b"PK\x05\x06" + b"\0" * 18, b"<script>alert(1)</script>", b"%PDF-1.4\n", random.randbytes(300))
    )
    return data + tail, ANY


def prepend(data: bytes, random: Random) -> tuple[bytes, frozenset[int]]:
    head = random.choice(
        (b"<!-- ", b"GIF89a", b"BM", b"%PDF-1.4\n", b"\xff\xd8\xff", b"P6\n", b"II*\0", b"\0" * 20)
    )
    return head + data, ANY


def other_format(_: bytes, random: Random) -> tuple[bytes, frozenset[int]]:
    """Valid files of kinds that Pillow knows and the gateway does not take."""
    image = Image.new("RGB", (9, 9), (1, 2, 3))
    buffer = io.BytesIO()
    image.save(buffer, random.choice(("ICO", "TGA", "PCX", "SGI", "EPS", "PDF", "JPEG2000", "ICNS", "DDS")))
    return buffer.getvalue(), frozenset({422})


def chunk(kind: bytes, data: bytes, crc: int | None = None) -> bytes:
    check = zlib.crc32(kind + data) if crc is None else crc
    return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", check)


@cache
def zeros(count: int) -> bytes:
    """`count` zero bytes, deflated: a thousandth of them."""
    return zlib.compress(b"\0" * count, 9)


SIGNATURE = b"\x89PNG\r\n\x1a\n"


def chunks_of(data: bytes) -> list[tuple[bytes, bytes]]:
    found, place = [], len(SIGNATURE)
    while place < len(data):
        (length,) = struct.unpack(">I", data[place : place + 4])
        found.append((data[place + 4 : place + 8], data[place + 8 : place + 8 + length]))
        place += 12 + length
    return found


def png(chunks: list[tuple[bytes, bytes]]) -> bytes:
    return SIGNATURE + b"".join(chunk(kind, data) for kind, data in chunks)


def png_surgery(_: bytes, random: Random) -> tuple[bytes, frozenset[int]]:
    """Chunks dropped, doubled, shuffled, renamed, resized; checksums right throughout."""
    chunks = chunks_of(seed_file("PNG", random)[0])
    place = random.randrange(len(chunks))
    kind, data = chunks[place]
    what = random.randrange(6)
    if what == 0:
        del chunks[place]
    elif what == 1:
        chunks.insert(random.randrange(len(chunks) + 1), (kind, data))
    elif what == 2:
        random.shuffle(chunks)
    elif what == 3:
        chunks[place] = (random.choice((b"IDAT", b"IHDR", b"PLTE", b"tRNS", b"acTL", b"fdAT", b"zzZZ")), data)
    elif what == 4:
        chunks[place] = (kind, data[: random.randrange(len(data) + 1)])
    else:
        chunks[place] = (kind, data + random.randbytes(random.randrange(1, 100)))
    return png(chunks), ANY


def png_without_pixels(_: bytes, random: Random) -> tuple[bytes, frozenset[int]]:
    chunks = [each for each in chunks_of(seed_file("PNG", random)[0]) if each[0] != b"IDAT"]
    return png(chunks), frozenset({422})


def png_with_more(_: bytes, random: Random) -> tuple[bytes, frozenset[int]]:
    """Ancillary chunks that a reader has to pass over change nothing."""
    data, statuses = seed_file("PNG", random)
    chunks = chunks_of(data)
    chunks.insert(1, random.choice(((b"tEXt", b"Comment\0hello"), (b"prVt", random.randbytes(200)))))
    return png(chunks), statuses


def text_bomb(_: bytes, random: Random) -> tuple[bytes, frozenset[int]]:
    """Text or a colour profile that expands to tens of megabytes."""
    chunks = chunks_of(seed_file("PNG", random)[0])
    packed = zeros(30_000_000)
    bomb = random.choice(
        ((b"zTXt", b"a\0\0" + packed), (b"iTXt", b"a\0\1\0\0\0" + packed), (b"iCCP", b"a\0\0" + packed))
    )
    chunks.insert(1, bomb)
    return png(chunks), ANY


def pixel_bomb(_: bytes, random: Random) -> tuple[bytes, frozenset[int]]:
    """A small file of very many pixels, all of them really there."""
    side = random.choice((600, 2000, 6000))
    packed = zeros((side + 1) * min(side, 3000))
    header = struct.pack(">IIBBBBB", side, side, 8, 0, 0, 0, 0)
    return png([(b"IHDR", header), (b"IDAT", packed), (b"IEND", b"")]), frozenset({413})


def lying_header(_: bytes, random: Random) -> tuple[bytes, frozenset[int]]:
    """A header that promises more pixels than are taken, with next to none behind it."""
    side = random.choice((1000, 30_000, 65_000))
    kind = random.randrange(4)
    if kind == 0:
        header = struct.pack(">IIBBBBB", side, side, 8, random.choice((0, 2)), 0, 0, 0)
        return png([(b"IHDR", header), (b"IDAT", zlib.compress(b"")), (b"IEND", b"")]), frozenset({413})
    if kind == 1:
        return b"P6\n%d %d\n255\nxyz" % (side, side), frozenset({413})
    if kind == 2:
        data = bytearray(seed_file("BMP", random)[0])
        data[18:26] = struct.pack("<ii", side, side)
        return bytes(data), frozenset({413})
    data = bytearray(seed_file("JPEG", random)[0])
    frame = max(data.find(b"\xff\xc0"), data.find(b"\xff\xc2"))
    data[frame + 5 : frame + 9] = struct.pack(">HH", side, side)
    return bytes(data), frozenset({413})


def animated(_: bytes, random: Random) -> tuple[bytes, frozenset[int]]:
    frames = [Image.new("RGB", (9, 9), (n * 40, 0, 0)) for n in range(1, 5)]
    buffer = io.BytesIO()
    format = random.choice(("PNG", "WEBP", "GIF", "TIFF"))
    frames[0].save(buffer, format, save_all=True, append_images=frames[1:])
    return buffer.getvalue(), frozenset({200 if format == "GIF" else 415})  # of a GIF, the first frame


Mutation = Callable[[bytes, Random], tuple[bytes, frozenset[int]]]
MUTATIONS: tuple[Mutation, ...] = (
    flip_bits, flip_header, cut, drop_middle, repeat_middle, splice, extreme_number, noise_after_magic,
    append, prepend, png_surgery, flip_bits, flip_header, extreme_number,
)  # fmt: skip
KNOWN: tuple[Mutation, ...] = (
    noise, cut_to_nothing_much, other_format, png_without_pixels, png_with_more, pixel_bomb, lying_header,
    animated, text_bomb,
)  # fmt: skip


def mutant(number: int) -> Mutant:
    """The same file for the same `number`, however many are made: formats in turn, one in four of the
    kinds whose answer is known."""
    random = Random(number)
    format = FORMATS[number % len(FORMATS)]
    data, statuses = seed_file(format, random)
    if number % 50 == 0:
        return Mutant(f"{format}, as it is", data, statuses)
    mutation = random.choice(KNOWN if number % 4 == 0 else MUTATIONS)
    changed, statuses = mutation(data, random)
    if not changed:
        return Mutant("nothing", b"", frozenset({422}))
    return Mutant(f"{format}, {mutation.__name__}", changed, statuses)
