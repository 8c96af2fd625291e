"""Every picture becomes upright 8-bit RGB; the reference is written out per mode, in numpy."""

from __future__ import annotations

import io
import itertools
import struct
import time
import tracemalloc
import zlib
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays
from numpy.typing import NDArray
from PIL import Image, ImageOps

from intaglio.imaging.containers import ImageRefused
from intaglio.imaging.decoding import decode_rgb, orientation_of

FORMATS = ("PNG", "JPEG", "WEBP", "BMP")
PICTURES = Path(__file__).parent / "pictures"
GRADIENT = np.linspace(0, 65535, 64 * 64).reshape(64, 64).astype(np.uint16)


def encoded(image: Image.Image, kind: str = "PNG", **options: Any) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, kind, **options)
    return buffer.getvalue()


def decoded(data: bytes) -> NDArray[np.uint8]:
    image = decode_rgb(data, formats=FORMATS, most_pixels=4096 * 4096)
    assert image.mode == "RGB"
    return np.asarray(image)


@pytest.mark.parametrize(
    ("data", "corner"),
    [
        (encoded(Image.new("CMYK", (64, 64), (0, 255, 255, 0)), "JPEG"), (255, 0, 0)),
        (encoded(Image.fromarray(GRADIENT)), (255, 255, 255)),
        (encoded(Image.fromarray(np.full((64, 64), 0x8080, np.uint16)), transparency=0x8080), (0, 0, 0)),
        (encoded(Image.new("RGBA", (64, 64), (255, 0, 0, 0))), (0, 0, 0)),
        (encoded(Image.new("RGBA", (64, 64), (255, 0, 0, 255)), "WEBP", lossless=True), (255, 0, 0)),
        (encoded(Image.new("LA", (64, 64), (255, 128))), (128, 128, 128)),
        (encoded(Image.new("1", (64, 64), 1)), (255, 255, 255)),
        (encoded(Image.new("1", (64, 64), 1), transparency=1), (0, 0, 0)),
        (encoded(Image.new("L", (64, 64), 70), transparency=70), (0, 0, 0)),
        (encoded(Image.new("RGB", (64, 64), (0, 0, 255)).quantize(4)), (0, 0, 255)),
        (encoded(Image.new("P", (64, 64), 0), transparency=0), (0, 0, 0)),
        (encoded(Image.new("RGB", (64, 64), (1, 2, 3)), "BMP"), (1, 2, 3)),
    ],
    ids=[
        "CMYK",
        "16-bit",
        "transparent 16-bit",
        "transparent",
        "opaque WEBP",
        "grey alpha",
        "1-bit",
        "transparent 1-bit",
        "transparent grey",
        "palette",
        "transparent palette",
        "BMP",
    ],
)
def test_odd_images_are_converted(data: bytes, corner: tuple[int, int, int]) -> None:
    np.testing.assert_allclose(decoded(data)[-1, -1], corner, atol=2)


def png(width: int, bits: int, color: int, row: bytes, transparent: bytes) -> bytes:
    """A PNG of one row, for what Pillow cannot write."""
    parts = [
        (b"IHDR", struct.pack(">IIBBBBB", width, 1, bits, color, 0, 0, 0)),
        (b"tRNS", transparent),
        (b"IDAT", zlib.compress(b"\0" + row)),
        (b"IEND", b""),
    ]
    chunks = [
        struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))
        for kind, data in parts
    ]
    return b"\x89PNG\r\n\x1a\n" + b"".join(chunks)


def test_a_transparent_sample_counts_in_the_files_bits() -> None:
    four = png(4, 2, 0, bytes([0b00_01_10_11]), struct.pack(">H", 2))
    np.testing.assert_array_equal(decoded(four)[0, :, 0], [0, 85, 0, 255])
    row = struct.pack(">6H", 0x1234, 0x5678, 0x9ABC, 0xFFFF, 0xFFFF, 0xFFFF)
    two = png(2, 16, 2, row, row[:6])
    np.testing.assert_array_equal(decoded(two)[0], [[0, 0, 0], [255, 255, 255]])


def test_sixteen_bit_grey_is_scaled_not_clipped() -> None:
    pixels = decoded(encoded(Image.fromarray(GRADIENT)))
    np.testing.assert_allclose(pixels[..., 0], GRADIENT / 257, atol=0.51)
    assert decoded((PICTURES / "d16.png").read_bytes()).mean() == pytest.approx(127.5, abs=0.1)


def test_what_transparency_hides_is_black() -> None:
    layered = np.asarray(Image.open(PICTURES / "rgba.png")).astype(np.float64)
    over_black = layered[..., :3] * layered[..., 3:] / 255
    np.testing.assert_allclose(decoded((PICTURES / "rgba.png").read_bytes()), over_black, atol=1)


@pytest.mark.parametrize("orientation", range(10))
@pytest.mark.parametrize("kind", ["PNG", "JPEG", "WEBP"])
def test_a_photo_is_turned_upright(kind: str, orientation: int) -> None:
    exif = Image.Exif()
    exif[0x0112] = orientation
    corners = Image.fromarray(np.array([[0, 80, 80], [160, 160, 255]], np.uint8)).resize((48, 32), 0)
    data = encoded(corners, kind, exif=exif)
    expected = ImageOps.exif_transpose(Image.open(io.BytesIO(data))).convert("RGB")
    np.testing.assert_array_equal(decoded(data), np.asarray(expected))


def test_exif_that_cannot_be_written_back_still_turns_the_picture() -> None:
    stored = np.asarray(Image.open(PICTURES / "odd-exif.png"))  # 16-bit grey
    expected = np.rot90(stored / 257, -1).round()
    np.testing.assert_array_equal(decoded((PICTURES / "odd-exif.png").read_bytes())[..., 0], expected)


@given(st.sampled_from([b"MM\0*", b"II*\0", b""]), st.binary(max_size=200))
def test_any_exif_has_an_orientation(order: bytes, rest: bytes) -> None:
    assert 1 <= orientation_of(order + rest) <= 8


def test_the_picture_survives_any_exif() -> None:
    for junk in (b"MM\0*\xff\xff\xff\xff", b"MM\0*\0\0\0\x08\xff\xff", b"junk", b"II*\0" + b"\x08" * 100):
        assert decoded(encoded(Image.new("RGB", (3, 2), "red"), "PNG", exif=junk)).shape == (2, 3, 3)


def test_exif_of_entries_that_share_their_values_costs_no_memory() -> None:
    """5000 entries that each claim the same 60000 bytes: 300 MB if they were copied."""
    size = 60_000
    entries = b"".join(struct.pack(">HHII", 0x8000 + tag, 7, size, 8) for tag in range(5000))
    directory = size + 8
    exif = b"MM\0*" + struct.pack(">I", directory) + bytes(size) + struct.pack(">H", 5000) + entries
    data = encoded(Image.new("RGB", (8, 8)), "PNG", exif=exif)
    tracemalloc.start()
    decoded(data)
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert peak < 4 * len(data)


MODES = {"1": 1, "L": 1, "LA": 2, "P": 1, "RGB": 3, "RGBA": 4, "CMYK": 4, "I;16": 1}
KINDS = {"PNG": {"1", "L", "LA", "P", "RGB", "RGBA", "I;16"}, "JPEG": {"L", "RGB", "CMYK"}} | {
    "WEBP": {"RGB", "RGBA"},
    "BMP": {"1", "L", "P", "RGB"},
}
PAIRS = [(kind, mode) for kind, modes in KINDS.items() for mode in sorted(modes)]


def reference(image: Image.Image) -> NDArray[np.float64]:
    """[H, W, 3] of an opened picture, by the rules that `intaglio.imaging.decoding` states."""
    turned = np.asarray(image if image.mode in ("I;16", "LA", "RGBA") else image.convert("RGB")).astype(
        np.float64
    )
    if image.mode == "I;16":
        turned = np.repeat((turned / 257).round()[..., None], 3, axis=-1)
    if image.mode in ("LA", "RGBA"):
        colors = np.broadcast_to(turned[..., :-1], (*turned.shape[:2], 3))
        turned = colors * turned[..., -1:] / 255
    return turned


@given(st.sampled_from(PAIRS), st.data())
def test_any_picture_that_pillow_writes_is_decoded_by_the_rules(
    pair: tuple[str, str], data: st.DataObject
) -> None:
    kind, mode = pair
    size = data.draw(st.tuples(st.integers(1, 12), st.integers(1, 12)))
    count = size[0] * size[1] * MODES[mode] * (2 if mode == "I;16" else 1)
    raw = data.draw(arrays.arrays(np.uint8, count)).tobytes()
    image = Image.frombytes(mode, size, raw if mode != "1" else raw[: (size[0] + 7) // 8 * size[1]])
    if mode == "P":
        image.putpalette(data.draw(st.binary(min_size=768, max_size=768)))
    options = {"lossless": True, "exact": True} if kind == "WEBP" else {}
    file = encoded(image, kind, **options)
    np.testing.assert_allclose(decoded(file), reference(Image.open(io.BytesIO(file))), atol=1)


@pytest.mark.parametrize("kind", FORMATS)
def test_damage_is_refused_and_never_a_traceback(kind: str) -> None:
    whole = encoded(Image.fromarray(np.random.default_rng(1).integers(0, 256, (16, 16, 3), np.uint8)), kind)
    refused = 0
    for position, value in itertools.product(range(min(len(whole), 300)), (0, 1, 127, 255)):
        data = whole[:position] + bytes([value]) + whole[position + 1 :]
        try:
            decoded(data)
        except ImageRefused:
            refused += 1
    assert refused > 20
    with pytest.raises(ImageRefused, match="damaged or truncated"):
        decoded(whole[: len(whole) // 2])


def test_a_format_that_was_not_asked_for_is_refused() -> None:
    data = encoded(Image.new("RGB", (4, 4)), "BMP")
    with pytest.raises(
        ImageRefused, match="not an image that can be read; allowed: PNG or JPEG of at most 99 pixels"
    ):
        decode_rgb(data, formats=("PNG", "JPEG"), most_pixels=99)
    for other in ("GIF", "TIFF", "PPM"):
        with pytest.raises(ImageRefused, match="not an image that can be read"):
            decoded(encoded(Image.new("RGB", (4, 4)), other))


def test_many_small_parts_take_time_in_proportion_to_their_bytes() -> None:
    """A picture of 4 MiB in 19,000 chunks."""
    plain = encoded(Image.new("RGB", (64, 64)))
    empty = (
        struct.pack(">I", 200) + b"teSt" + bytes(200) + struct.pack(">I", zlib.crc32(b"teSt" + bytes(200)))
    )
    started = time.process_time()
    np.testing.assert_array_equal(decoded(plain[:33] + empty * 19_000 + plain[33:]), 0)
    assert time.process_time() - started < 1


def palette_png(*, colours: bytes | None, transparency: bytes | None) -> bytes:
    """A PNG of 2 x 2 pixels of a palette, which may lack what it needs."""

    def chunk(kind: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    parts = [chunk(b"IHDR", struct.pack(">IIBBBBB", 2, 2, 8, 3, 0, 0, 0))]
    if colours is not None:
        parts.append(chunk(b"PLTE", colours))
    if transparency is not None:
        parts.append(chunk(b"tRNS", transparency))
    parts += [chunk(b"IDAT", zlib.compress(b"\0\0\1\0\1\0")), chunk(b"IEND", b"")]
    return b"\x89PNG\r\n\x1a\n" + b"".join(parts)


@pytest.mark.parametrize(
    "data",
    [
        palette_png(colours=None, transparency=None),
        palette_png(colours=bytes(6), transparency=b"\xff" * 290 + b"\0" + b"\xff" * 9),
    ],
)
def test_a_damaged_palette_is_refused(data: bytes) -> None:
    """Pillow notices such a palette only when it is asked for other pixels."""
    with pytest.raises(ImageRefused, match="damaged or truncated image"):
        decode_rgb(data, formats=("PNG",), most_pixels=100)
