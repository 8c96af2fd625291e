"""Headers are walked in little time; what would cost a decoder more than its pixels is refused by name."""

from __future__ import annotations

import contextlib
import io
import struct
import time
import zlib
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from intaglio.imaging.containers import (
    MOST_PARTS,
    MOST_PASSES,
    MOST_SCANS,
    MOST_SIDE,
    ImageRefused,
    Still,
    still_from_bytes,
)

FORMATS = ("PNG", "JPEG", "WEBP", "BMP")
MOST_PIXELS = 4096 * 4096
NOISE = Image.fromarray(np.random.default_rng(0).integers(0, 256, (24, 40, 3), np.uint8))


def encoded(image: Image.Image, kind: str, **options: Any) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, kind, **options)
    return buffer.getvalue()


def still(data: bytes) -> Still:
    return still_from_bytes(data, formats=FORMATS, most_pixels=MOST_PIXELS)


def chunk(kind: bytes, data: bytes = b"") -> bytes:
    return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))


def with_chunks(png: bytes, chunks: bytes) -> bytes:
    """`chunks` after the header, which ends at byte 33."""
    return png[:33] + chunks + png[33:]


@pytest.mark.parametrize(
    ("kind", "options"),
    [
        ("PNG", {}),
        ("JPEG", {}),
        ("JPEG", {"progressive": True}),
        ("WEBP", {"lossless": True}),
        ("WEBP", {}),
        ("WEBP", {"exif": b"MM\0*\0\0\0\x08\0\0"}),  # an extended file
        ("BMP", {}),
    ],
)
def test_size_and_pixels_are_the_files(kind: str, options: dict[str, Any]) -> None:
    data = encoded(NOISE, kind, **options)
    found = still(data)
    assert (found.format, found.width, found.height) == (kind, 40, 24)
    again, plain = (np.asarray(Image.open(io.BytesIO(part))) for part in (found.data, data))
    np.testing.assert_array_equal(again, plain)


@pytest.mark.parametrize("kind", ["PNG", "JPEG", "WEBP"])
def test_exif_is_found_and_kept_from_the_decoder(kind: str) -> None:
    exif = Image.Exif()
    exif[0x0112] = 6
    found = still(encoded(NOISE, kind, exif=exif))
    assert found.exif.startswith((b"MM\0*", b"II*\0"))
    if kind != "WEBP":
        assert b"MM\0*" not in found.data
        assert b"II*\0" not in found.data


def test_compressed_text_never_reaches_the_decoder() -> None:
    bomb = zlib.compress(b"\0" * 50_000_000, 9)
    texts = (
        chunk(b"zTXt", b"a\0\0" + bomb)
        + chunk(b"iCCP", b"a\0\0" + bomb)
        + chunk(b"iTXt", b"a\0\1\0\0\0" + bomb)
    )
    plain = encoded(NOISE, "PNG")
    assert still(with_chunks(plain, texts)).data == plain


def test_a_jpeg_of_many_scans_is_refused() -> None:
    data = encoded(NOISE, "JPEG", progressive=True)
    start = data.index(b"\xff\xda")
    scan = data[start : data.index(b"\xff", start + 20)]
    within = data.count(b"\xff\xda")
    full = data[:start] + scan * (MOST_SCANS - within) + data[start:]
    assert still(full).format == "JPEG"
    with pytest.raises(
        ImageRefused, match=rf"a JPEG of {MOST_SCANS + 1} scans; allowed: at most {MOST_SCANS}"
    ):
        still(data[:start] + scan + full[start:])


@pytest.mark.parametrize(("mode", "components"), [("L", 1), ("RGB", 3), ("CMYK", 4)])
def test_the_passes_of_scans_are_bounded_for_the_largest_picture(mode: str, components: int) -> None:
    """50 scans of four components each took three seconds, with 4096 x 4096 pixels."""
    picture = NOISE.convert(mode)
    data = encoded(picture, "JPEG", progressive=True)
    pixels = picture.width * picture.height
    found = still_from_bytes(data, formats=("JPEG",), most_pixels=pixels)
    assert components <= found.passes <= 24, "what encoders write"
    start = data.index(b"\xff\xda")
    end = data.index(b"\xff", start + 20)
    while data[end + 1] == 0:
        end = data.index(b"\xff", end + 1)
    more = data[:start] + data[start:end] * ((MOST_PASSES - found.passes) // components) + data[start:]
    assert still_from_bytes(more, formats=("JPEG",), most_pixels=pixels).passes <= MOST_PASSES
    one_more = more[:start] + data[start:end] + more[start:]
    with pytest.raises(ImageRefused, match=rf"a JPEG of 4\d passes over .* at most {MOST_PASSES} passes"):
        still_from_bytes(one_more, formats=("JPEG",), most_pixels=pixels)
    assert still_from_bytes(one_more, formats=("JPEG",), most_pixels=2 * pixels)


def test_arithmetic_coding_is_named() -> None:
    data = encoded(NOISE, "JPEG")
    frame = data.index(b"\xff\xc0")
    with pytest.raises(ImageRefused, match="arithmetic coding; allowed: a JPEG with Huffman coding"):
        still(data[:frame] + b"\xff\xc9" + data[frame + 2 :])


def test_pictures_after_a_jpegs_first_are_left_out() -> None:
    data = encoded(NOISE, "JPEG")
    assert still(data + data * 100).data == still(data).data


@pytest.mark.parametrize(
    ("kind", "options"), [("PNG", {"save_all": True}), ("WEBP", {"save_all": True, "lossless": True})]
)
def test_animations_are_refused(kind: str, options: dict[str, Any]) -> None:
    frames = [Image.new("RGB", (8, 8), color) for color in ("red", "green", "blue")]
    data = encoded(frames[0], kind, append_images=frames[1:], **options)
    with pytest.raises(ImageRefused, match="animated: 3 frames; allowed: a picture of one frame"):
        still(data)


def test_a_header_of_too_many_pixels_is_refused() -> None:
    data = bytearray(encoded(NOISE, "PNG"))
    data[16:24] = struct.pack(">II", 4096, 4097)
    with pytest.raises(
        ImageRefused, match="4096x4097 pixels; allowed: PNG, JPEG, WEBP or BMP of at most 16777216"
    ):
        still(bytes(data))


def test_a_webp_canvas_of_too_many_pixels_is_refused_before_it_is_allocated() -> None:
    data = bytearray(encoded(NOISE, "WEBP", exif=b"MM\0*\0\0\0\x08\0\0"))
    data[24:30] = (16382).to_bytes(3, "little") * 2
    with pytest.raises(ImageRefused, match="16383x16383 pixels"):
        still(bytes(data))


@pytest.mark.parametrize("size", [(1, MOST_SIDE + 1), (MOST_SIDE + 1, 1)])
def test_a_very_long_picture_is_refused(size: tuple[int, int]) -> None:
    """Resized to a width of 1024, a column of 16 million pixels would take 64 GiB on the way."""
    with pytest.raises(ImageRefused, match=f"sides of at most {MOST_SIDE}"):
        still(encoded(Image.new("L", size), "PNG"))
    assert still(encoded(Image.new("L", (1, MOST_SIDE)), "PNG")).height == MOST_SIDE


LARGE = 16 << 20
HOSTILE = {
    "empty chunks": with_chunks(encoded(NOISE, "PNG"), chunk(b"IDAT") * (LARGE // 12)),
    "empty segments": b"\xff\xd8" + b"\xff\xfe\0\2" * (LARGE // 4),
    "markers without segments": b"\xff\xd8" + b"\xff\xd8" * (LARGE // 2),
    "empty RIFF chunks": b"RIFF" + struct.pack("<I", LARGE) + b"WEBP" + b"VP8 \0\0\0\0" * (LARGE // 8),
}


@pytest.mark.parametrize("data", HOSTILE.values(), ids=HOSTILE)
def test_many_parts_are_refused(data: bytes) -> None:
    with pytest.raises(ImageRefused, match=f"more than {MOST_PARTS} chunks or segments"):
        still(data)


@pytest.mark.parametrize("filling", [b"\xff", b"\xff\0", b"\xff\xd0", b"\0"])
def test_a_walk_takes_time_in_proportion_to_the_bytes(filling: bytes) -> None:
    """16 MiB without a marker would take minutes if a run were searched again from each of its bytes."""
    data = encoded(NOISE, "JPEG")
    at = data.index(b"\xff\xda")
    long = data[:at] + filling * (LARGE // len(filling)) + data[at:]
    started = time.process_time()
    assert still(long).width == 40
    assert time.process_time() - started < 2


@given(
    st.sampled_from(["PNG", "JPEG", "WEBP", "BMP"]),
    st.lists(st.tuples(st.integers(0, 10_000), st.integers(0, 255)), max_size=5),
    st.integers(0, 10_000),
)
def test_damage_is_refused_or_passed_on(kind: str, changes: list[tuple[int, int]], cut: int) -> None:
    data = bytearray(encoded(NOISE, kind))
    for position, value in changes:
        data[position % len(data)] = value
    with contextlib.suppress(ImageRefused):
        assert still(bytes(data[: max(cut % (2 * len(data)), 1)])).width > 0
