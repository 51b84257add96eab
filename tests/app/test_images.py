"""Bytes → pixels: exact where nothing has to change, right where something has, an error otherwise."""

import io
import struct
import zlib

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image, ImageCms

from app.images import (
    Decoder,
    EmptyImage,
    ImageError,
    OversizedImage,
    UnreadableImage,
    UnsupportedImage,
    readable,
)
from tests.app.routes.test_classify import animated, bomb_png
from tests.app.tiny import encoded

FORMATS = ("PNG", "JPEG", "WEBP", "BMP", "PPM")


def decoder(size: tuple[int, int] = (8, 8), channels: int = 3, formats: tuple[str, ...] = FORMATS) -> Decoder:
    return Decoder(size, channels, "bilinear", formats, max_bytes=1_000_000, max_pixels=1_000_000)


def noise(*shape: int) -> np.ndarray:
    return np.random.default_rng(0).integers(0, 256, shape, dtype=np.uint8)


@settings(max_examples=30, deadline=None)
@given(
    st.integers(1, 20), st.integers(1, 20), st.sampled_from([1, 3]), st.sampled_from(["PNG", "BMP", "PPM"])
)
def test_an_image_of_the_right_size_comes_out_exactly(
    height: int, width: int, channels: int, format: str
) -> None:
    values = noise(height, width, 3) if channels == 3 else noise(height, width)
    out = decoder((height, width), channels)(encoded(values, format))
    planes = values.transpose(2, 0, 1) if channels == 3 else values[None]
    assert out.dtype == np.float32
    assert out.flags.c_contiguous
    assert np.array_equal(out, planes.astype(np.float32) / np.float32(255))


def test_grey_for_a_colour_network_is_repeated() -> None:
    values = noise(8, 8)
    out = decoder()(encoded(values))
    assert out.shape == (3, 8, 8)
    assert all(np.array_equal(plane, values.astype(np.float32) / np.float32(255)) for plane in out)


def test_colour_for_a_grey_network_is_luma() -> None:
    """ITU-R 601: 0.299 R + 0.587 G + 0.114 B, on 8 bits."""
    image = Image.new("RGB", (8, 8), (200, 100, 50))
    out = decoder(channels=1)(encoded(image))
    assert out.shape == (1, 8, 8)
    assert np.allclose(out * 255, 0.299 * 200 + 0.587 * 100 + 0.114 * 50, atol=0.5)


def test_resized_as_pillow_does_it() -> None:
    image = Image.fromarray(noise(20, 30, 3))
    expected = np.asarray(image.resize((8, 8), Image.Resampling.BILINEAR), dtype=np.float32) / 255
    assert np.allclose(decoder()(encoded(image)), expected.transpose(2, 0, 1), atol=1e-7)


def test_one_pixel_fills_the_frame() -> None:
    assert np.allclose(
        decoder()(encoded(Image.new("RGB", (1, 1), (51, 102, 255)))).mean((1, 2)), [0.2, 0.4, 1.0]
    )


class TestTransparency:
    """Laid on white, as a viewer would see it."""

    @pytest.mark.parametrize(("alpha", "expected"), [(255, 0.0), (0, 1.0), (51, 0.8)])
    def test_rgba(self, alpha: int, expected: float) -> None:
        out = decoder()(encoded(Image.new("RGBA", (8, 8), (0, 0, 0, alpha))))
        assert np.allclose(out, expected, atol=0.5 / 255)

    def test_opaque_rgba_is_exact(self) -> None:
        values = noise(8, 8, 3)
        out = decoder()(encoded(Image.fromarray(values).convert("RGBA")))
        assert np.array_equal(out, values.transpose(2, 0, 1).astype(np.float32) / np.float32(255))

    def test_grey_with_alpha(self) -> None:
        out = decoder(channels=1)(encoded(Image.new("LA", (8, 8), (0, 0))))
        assert np.allclose(out, 1.0)

    def test_palette_with_a_transparent_colour(self) -> None:
        image = Image.new("P", (8, 8), 1)
        image.putpalette([10, 20, 30, 0, 0, 0])
        assert np.allclose(decoder()(encoded(image)), 0.0)
        assert np.allclose(decoder()(encoded(image, transparency=1)), 1.0)


def test_palette_colours() -> None:
    image = Image.new("P", (8, 8), 1)
    image.putpalette([0, 0, 0, 255, 51, 102])
    assert np.allclose(decoder()(encoded(image)).mean((1, 2)), [1.0, 0.2, 0.4])


def test_one_bit() -> None:
    assert np.array_equal(decoder(channels=1)(encoded(Image.new("1", (8, 8), 1))), np.ones((1, 8, 8)))


def test_cmyk() -> None:
    out = decoder()(encoded(Image.new("CMYK", (8, 8), (255, 0, 0, 0)), "JPEG", quality=100))
    assert np.allclose(out.mean((1, 2)), [0, 1, 1], atol=0.02)


def test_cmyk_by_hand() -> None:
    """R = 255 - min(255, C + K), exact in a TIFF."""
    image = Image.new("CMYK", (8, 8), (255, 51, 0, 51))
    out = decoder(formats=("TIFF",))(encoded(image, "TIFF"))
    assert np.allclose(out.mean((1, 2)), [0, 0.64, 0.8], atol=1.5 / 255)


def test_a_palette_with_an_opacity_for_each_colour() -> None:
    image = Image.new("P", (8, 8), 0)
    image.putpalette([0, 0, 0, 255, 0, 0])
    image.paste(1, (0, 0, 4, 8))
    out = decoder()(encoded(image, transparency=bytes([51, 102])))
    assert np.allclose(out[:, 0, 0], [1, 0.6, 0.6], atol=1 / 255)  # red at an opacity of 0.4
    assert np.allclose(out[:, 0, 7], 0.8, atol=1 / 255)  # black at 0.2


def chunk(kind: bytes, content: bytes) -> bytes:
    return struct.pack(">I", len(content)) + kind + content + struct.pack(">I", zlib.crc32(kind + content))


def deep_png(colour_type: int, row: list[list[int]], transparent: int | None = None) -> bytes:
    """A PNG of one row of 16-bit pixels."""
    header = struct.pack(">IIBBBBB", len(row), 1, 16, colour_type, 0, 0, 0)
    samples = [sample for pixel in row for sample in pixel]
    parts = [chunk(b"IHDR", header)]
    parts += [chunk(b"tRNS", struct.pack(">H", transparent))] if transparent is not None else []
    parts += [chunk(b"IDAT", zlib.compress(b"\0" + struct.pack(f">{len(samples)}H", *samples)))]
    return b"\x89PNG\r\n\x1a\n" + b"".join(parts) + chunk(b"IEND", b"")


def deep_tiff(photometric: int, samples: list[int]) -> bytes:
    """A little-endian TIFF of 2×2 16-bit grey pixels."""
    tags = [(256, 2), (257, 2), (258, 16), (259, 1), (262, photometric), (273, 110), (277, 1), (279, 8)]
    entries = b"".join(struct.pack("<HHIHH", tag, 3, 1, value, 0) for tag, value in tags)
    data = b"II*\0" + struct.pack("<IH", 8, len(tags)) + entries + struct.pack("<I", 0)
    assert len(data) == 110
    return data + struct.pack("<4H", *samples)


class TestSixteenBits:
    """Scaled by 65535; Pillow's own conversion would clip everything above 255 to white."""

    @pytest.mark.parametrize("channels", [1, 3])
    def test_exact(self, channels: int) -> None:
        values = np.random.default_rng(0).integers(0, 65536, (8, 8), dtype=np.uint16)
        out = decoder(channels=channels)(encoded(values))
        assert out.shape == (channels, 8, 8)
        assert np.allclose(out, values / 65535, atol=1e-7)

    def test_dark_and_resized(self) -> None:
        out = decoder(channels=1)(encoded(np.full((20, 30), 6554, dtype=np.uint16)))
        assert np.allclose(out, 0.1, atol=1e-4)

    def test_bicubic_stays_in_range(self) -> None:
        values = np.zeros((16, 16), dtype=np.uint16)
        values[:, 8:] = 65535
        out = Decoder((9, 9), 1, "bicubic", FORMATS, 1_000_000, 1_000_000)(encoded(values))
        assert 0 <= out.min() <= out.max() <= 1

    def test_a_portable_greymap(self) -> None:
        values = np.full((8, 8), 0x8000, dtype=">u2")
        out = decoder(channels=1)(b"P5 8 8 65535\n" + values.tobytes())
        assert np.allclose(out, 0x8000 / 65535, atol=1e-6)

    @pytest.mark.parametrize(("photometric", "grey"), [(1, 13107 / 65535), (0, 1 - 13107 / 65535)])
    def test_a_tiff_by_what_it_says_of_white(self, photometric: int, grey: float) -> None:
        """Tag 262: 1 black is zero, 0 white is zero."""
        out = decoder((2, 2), 1, formats=("TIFF",))(deep_tiff(photometric, [13107] * 4))
        assert np.allclose(out, grey, atol=1e-6)

    def test_a_big_endian_tiff(self) -> None:
        little = deep_tiff(1, [0x1234] * 4)
        big = encoded(Image.frombytes("I;16B", (2, 2), struct.pack(">4H", *[0x1234] * 4)), "TIFF")
        assert big[:2] == b"MM" or Image.open(io.BytesIO(big)).mode.startswith("I;16")
        for data in (little, big):
            assert np.allclose(decoder((2, 2), 1, formats=("TIFF",))(data), 0x1234 / 65535, atol=1e-6)

    def test_a_transparent_grey_is_white(self) -> None:
        out = decoder((1, 2), 1)(deep_png(0, [[1000], [2000]], transparent=1000))
        assert np.allclose(out, [[[1.0, 2000 / 65535]]], atol=1e-6)

    def test_colours_to_the_precision_of_8_bits(self) -> None:
        out = decoder((1, 2), 3)(deep_png(2, [[0xFFFF, 0x8000, 0x0180], [0, 0x00FF, 0xFF00]]))
        assert np.allclose(out[:, 0, 0], [1, 0x8000 / 65535, 0x0180 / 65535], atol=1 / 255)
        assert np.allclose(out[:, 0, 1], [0, 0x00FF / 65535, 0xFF00 / 65535], atol=1 / 255)

    def test_colours_over_white(self) -> None:
        out = decoder((1, 2), 3)(deep_png(6, [[0, 0, 0, 0xFFFF], [0, 0, 0, 0]]))
        assert np.array_equal(out[:, 0], [[0, 1]] * 3)

    def test_more_bits_are_refused(self) -> None:
        wide = encoded(Image.fromarray(np.full((8, 8), 1_000_000, dtype=np.int32)), "TIFF")
        with pytest.raises(UnsupportedImage, match="32-bit"):
            decoder(formats=("TIFF",))(wide)
        floating = encoded(Image.fromarray(np.full((8, 8), 0.5, dtype=np.float32)), "TIFF")
        with pytest.raises(UnsupportedImage, match="floating"):
            decoder(formats=("TIFF",))(floating)


@pytest.mark.parametrize("orientation", range(1, 9))
def test_exif_orientation_is_applied(orientation: int) -> None:
    """An image stored as a camera stores it that was held that way comes out upright."""
    upright = np.zeros((8, 8), dtype=np.uint8)
    upright[:4, :4] = 255
    upright[0, 7] = 100
    stored = {
        1: upright, 2: upright[:, ::-1], 3: upright[::-1, ::-1], 4: upright[::-1], 5: upright.T,
        6: np.rot90(upright), 7: upright[::-1, ::-1].T, 8: np.rot90(upright, -1),
    }[orientation]  # fmt: skip
    exif = Image.Exif()
    exif[0x0112] = orientation
    out = decoder(channels=1)(encoded(np.ascontiguousarray(stored), "PNG", exif=exif))
    assert np.array_equal(out[0], upright.astype(np.float32) / np.float32(255))


@pytest.mark.parametrize(
    "profile", [ImageCms.ImageCmsProfile(ImageCms.createProfile("XYZ")).tobytes(), b"junk"]
)
@pytest.mark.parametrize("format", ["PNG", "JPEG", "WEBP", "TIFF"])
def test_an_icc_profile_changes_nothing(format: str, profile: bytes) -> None:
    values = noise(8, 8, 3)
    options = {"lossless": True} if format == "WEBP" else {}
    plain = decoder(formats=(*FORMATS, "TIFF"))(encoded(values, format, **options))
    tagged = decoder(formats=(*FORMATS, "TIFF"))(encoded(values, format, icc_profile=profile, **options))
    assert np.array_equal(plain, tagged)


def test_of_a_gif_the_first_frame() -> None:
    frames = [Image.new("L", (8, 8), grey) for grey in (51, 204)]
    data = encoded(frames[0], "GIF", save_all=True, append_images=frames[1:])
    assert Image.open(io.BytesIO(data)).n_frames == 2
    assert np.allclose(decoder(formats=("GIF",))(data), 0.2)


def test_a_gifs_transparent_colour_is_white() -> None:
    image = Image.new("P", (8, 8), 1)
    image.putpalette([10, 20, 30, 0, 0, 0])
    assert np.allclose(decoder(formats=("GIF",))(encoded(image, "GIF", transparency=1)), 1.0)


def test_avif() -> None:
    """Lossy: nearly the colours, where Pillow has it."""
    if "AVIF" not in readable(["AVIF"]):
        pytest.skip("this Pillow lacks AVIF")
    data = encoded(Image.new("RGB", (16, 16), (255, 51, 102)), "AVIF", quality=100)
    assert np.allclose(decoder(formats=("AVIF",))(data).mean((1, 2)), [1.0, 0.2, 0.4], atol=0.02)


def test_a_format_that_this_pillow_lacks_is_left_out() -> None:
    assert readable(["PNG", "NOSUCH"]) == ["PNG"]
    with pytest.raises(UnreadableImage, match=r"one of the formats PNG$"):
        decoder(formats=("PNG", "NOSUCH"))(b"\0" * 100)


def test_a_phones_jpeg_with_a_preview_is_one_picture() -> None:
    frames = [Image.fromarray(noise(8, 8, 3)), Image.fromarray(noise(4, 4, 3))]
    data = encoded(frames[0], "MPO", save_all=True, append_images=frames[1:])
    assert decoder()(data).shape == (3, 8, 8)


def animated_png() -> bytes:
    frames = [Image.fromarray(noise(8, 8)), Image.fromarray(255 - noise(8, 8))]
    return encoded(frames[0], "PNG", save_all=True, append_images=frames[1:])


@pytest.mark.parametrize(
    ("data", "error", "words"),
    [
        (b"", EmptyImage, "no bytes"),
        (b"\0" * 100, UnreadableImage, "not an image in one of the formats PNG"),
        (b"%PDF-1.7 ...", UnreadableImage, "not an image"),
        (b"<svg xmlns='http://www.w3.org/2000/svg'/>", UnreadableImage, "not an image"),
        (encoded(noise(8, 8))[:60], UnreadableImage, "truncated or corrupt"),
        (encoded(noise(64, 64, 3), "JPEG")[:600], UnreadableImage, "truncated or corrupt"),
        (animated(), UnsupportedImage, "animated"),
        (animated_png(), UnsupportedImage, "animated"),
        (bomb_png(1001), OversizedImage, "1001×1001"),
        (bomb_png(12_000), OversizedImage, "more than"),
        (bomb_png(60_000), OversizedImage, "more than 1000000 pixels"),
        (encoded(noise(8, 8)) + b"x" * 1_000_000, OversizedImage, "bytes"),
        (encoded(noise(8, 8), "GIF"), UnreadableImage, "not an image in one of"),
        (encoded(noise(8, 8), "TIFF"), UnreadableImage, "not an image in one of"),
    ],
)
def test_what_is_no_usable_image(data: bytes, error: type[ImageError], words: str) -> None:
    with pytest.raises(error, match=words):
        decoder()(data)


def text_bomb() -> bytes:
    """A PNG with a compressed comment of 80 MB."""
    packed = b"comment\0\0" + zlib.compress(bytes(80_000_000), 9)
    chunk = (
        struct.pack(">I", len(packed)) + b"zTXt" + packed + struct.pack(">I", zlib.crc32(b"zTXt" + packed))
    )
    data = encoded(noise(8, 8))
    return data[:33] + chunk + data[33:]


def test_a_compressed_comment_is_not_blown_up() -> None:
    with pytest.raises(ImageError):
        decoder()(text_bomb())


@settings(max_examples=150, deadline=None)
@given(
    st.sampled_from(["PNG", "JPEG", "WEBP", "BMP", "PPM"]),
    st.lists(st.tuples(st.floats(0, 1), st.integers(0, 255)), max_size=8),
    st.floats(0, 1),
)
def test_damaged_files_decode_or_are_refused(
    format: str, changes: list[tuple[float, int]], kept: float
) -> None:
    """Nothing but `ImageError` ever comes out, and what decodes has the right shape and range."""
    data = bytearray(encoded(noise(9, 7, 3), format))
    for place, value in changes:
        data[int(place * (len(data) - 1))] = value
    data = data[: max(1, int(kept * len(data)))] if kept < 0.5 else data
    try:
        out = decoder()(bytes(data))
    except ImageError:
        return
    assert out.shape == (3, 8, 8)
    assert 0 <= out.min() <= out.max() <= 1
