"""What a picture's file says before anything is decoded: its format, size, orientation and amount of work.

The number of pixels alone does not bound a decoder's work. A small file can ask for thousands of passes over
the same pixels, for text that decompresses to gigabytes, or for a table of metadata whose entries all point
to the same megabytes. `still_from_bytes` walks the file once, counts what costs work, refuses what costs too
much, and keeps only the parts that make the pixels. The decoder never sees the rest.

What was checked, part by part:

| part of a file | work it can ask for | what bounds it here |
|---|---|---|
| any: width, height | memory for the pixels | `most_pixels`, from the header |
| any: a side of millions of pixels | resizing holds new width x old height pixels | `MOST_SIDE` |
| any: chunks and segments | a step of Python each | `MOST_PARTS` |
| any: EXIF | entries that share a value copy it: gigabytes | only the orientation is read, in place |
| any: ICC profile | decompression (PNG), one copy (WEBP) | taken out before Pillow (PNG, JPEG) |
| PNG: zTXt, iTXt, iCCP | decompression of 1 to 1000 | taken out before Pillow |
| PNG: IDAT | zlib stops at the last row; every byte is read once | the file's bytes and `most_pixels` |
| PNG: interlace | seven passes over disjoint pixels: the work of one | `most_pixels` |
| PNG: acTL, fcTL, fdAT | a frame each | refused above one frame |
| JPEG: scans | each passes over every block of its components | `MOST_SCANS`, `MOST_PASSES` |
| JPEG: arithmetic coding | more for each byte than Huffman's | refused; hardly any decoder has it |
| JPEG: MPF index, thumbnails, pictures after the first | parsed as EXIF is | taken out before Pillow |
| JPEG: restart markers, fill bytes, bytes between segments | read once, in C | the file's bytes |
| WEBP: ANMF | a frame each | refused above one frame |
| WEBP: VP8X | the canvas is allocated when the file is opened | `most_pixels`, before it is opened |
| BMP: run lengths | a step of Python each, one a row or less | the file's bytes and `most_pixels` |
"""

from __future__ import annotations

import re
import struct
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Final, Literal

__all__ = [
    "MOST_PARTS",
    "MOST_PASSES",
    "MOST_SCANS",
    "MOST_SIDE",
    "Format",
    "ImageRefused",
    "Still",
    "still_from_bytes",
]

Format = Literal["PNG", "JPEG", "WEBP", "BMP"]

MOST_SCANS: Final = 50
"""Scans of one JPEG. Encoders write 18 or fewer."""
MOST_PASSES: Final = 40
"""Passes of a JPEG's scans over one component of the largest picture that is allowed; a smaller picture may
have more. A progressive CMYK has 24. The slowest 32 MiB of 4096 x 4096 pixels within this bound took 1.7 s.
"""
MOST_PARTS: Final = 20_000
"""Chunks of one PNG or WEBP, segments of one JPEG. PNG writers put 4 KiB or more into a chunk."""
MOST_SIDE: Final = 16_384
"""Pixels of width or height; also the most that WEBP can hold."""

_PNG_SIGNATURE: Final = b"\x89PNG\r\n\x1a\n"
_PNG_KEPT: Final = frozenset({b"IHDR", b"PLTE", b"tRNS", b"IDAT", b"IEND"})

_JPEG_MARKER: Final = re.compile(rb"\xff[^\x00\xff\xd0-\xd7]")
"""A marker that is no stuffed zero, fill byte or restart. Two bytes: runs of fill bytes cost no more."""
_JPEG_EXIF: Final = b"Exif\0\0"
_TEMPORARY: Final = 0x01
_START_OF_IMAGE: Final = 0xD8
_END_OF_IMAGE: Final = 0xD9
_START_OF_SCAN: Final = 0xDA
_APP0_JFIF: Final = 0xE0
_APP1_EXIF: Final = 0xE1
_APP14_ADOBE: Final = 0xEE
_JPEG_TABLES: Final = frozenset({0xC4, 0xC8, 0xCC})
"""Huffman tables, a reserved marker, arithmetic conditioning: the markers between 0xC0 and 0xCF that are no
frame header (ITU-T T.81, table B.1).
"""
_JPEG_ARITHMETIC: Final = frozenset(range(0xC9, 0xD0)) - _JPEG_TABLES
"""Frame headers of pictures with arithmetic coding (same table)."""
_JPEG_KEPT: Final = frozenset({*range(0xC0, 0xD0), *range(0xDB, 0xE0), _APP0_JFIF, _APP14_ADOBE})
"""Frames, tables, restart intervals, and the two segments that say which colours the components are."""


class ImageRefused(Exception):  # noqa: N818  (as `InvalidRequest`)
    """A picture cannot be used: `problem` says what is wrong with it, `allowed` what would be right."""

    def __init__(self, problem: str, *, allowed: str) -> None:
        self.problem = problem
        self.allowed = allowed
        super().__init__(f"{problem}; allowed: {allowed}")


@dataclass(frozen=True, slots=True)
class Still:
    """One still picture, not yet decoded."""

    format: Format
    width: int
    height: int
    data: bytes
    """A file of that format with the parts that make the pixels."""
    exif: bytes
    """EXIF as a TIFF structure; empty where there is none."""
    grey_bits: int = 8
    """Bits of a grey sample in a PNG."""
    passes: int = 0
    """How often the scans of a JPEG pass over one component of the picture."""


def still_from_bytes(data: bytes, *, formats: Sequence[Format], most_pixels: int) -> Still:
    """The picture in `data`.

    Raises:
        ImageRefused: not one of `formats`, animated, larger than `most_pixels`, or more work than the
            module's limits allow.
    """
    allowed = f"{_listed(formats)} of at most {most_pixels} pixels"
    found = _format_of(data)
    if found is None or found not in formats:
        raise ImageRefused("not an image that can be read", allowed=allowed)
    try:
        still = _WALKS[found](data)
    except (struct.error, IndexError) as error:
        raise ImageRefused(f"damaged image: its {found} header is incomplete", allowed=allowed) from error
    if not (still.width and still.height):
        raise ImageRefused(f"damaged image: {still.width}x{still.height} pixels", allowed=allowed)
    if still.width * still.height > most_pixels:
        raise ImageRefused(f"{still.width}x{still.height} pixels", allowed=allowed)
    if max(still.width, still.height) > MOST_SIDE:
        raise ImageRefused(f"{still.width}x{still.height} pixels", allowed=f"sides of at most {MOST_SIDE}")
    most_passes = MOST_PASSES * most_pixels // (still.width * still.height)
    if still.passes > most_passes:
        problem = f"a JPEG of {still.passes} passes over its {still.width}x{still.height} pixels"
        raise ImageRefused(problem, allowed=f"at most {most_passes} passes, as encoders write them")
    return still


def _listed(formats: Sequence[Format]) -> str:
    return f"{', '.join(formats[:-1])} or {formats[-1]}"


def _format_of(data: bytes) -> Format | None:
    if data.startswith(_PNG_SIGNATURE):
        return "PNG"
    if data.startswith(b"\xff\xd8\xff"):
        return "JPEG"
    if data.startswith(b"RIFF") and data[8:12] == b"WEBP":
        return "WEBP"
    if data.startswith(b"BM"):
        return "BMP"
    return None


def _check_parts(count: int) -> None:
    if count > MOST_PARTS:
        raise ImageRefused(f"more than {MOST_PARTS} chunks or segments", allowed=f"at most {MOST_PARTS}")


def _check_frames(count: int) -> None:
    if count > 1:
        raise ImageRefused(f"animated: {count} frames", allowed="a picture of one frame")


def _still_of_png(data: bytes) -> Still:
    """PNG specification, section 5.3: length, type, data, CRC."""
    kept = [_PNG_SIGNATURE]
    exif = b""
    frames = 1
    parts = 0
    position = len(_PNG_SIGNATURE)
    width, height, grey_bits = struct.unpack_from(">IIB", data, position + 8)
    while position + 8 <= len(data):
        parts += 1
        _check_parts(parts)
        length, kind = struct.unpack_from(">I4s", data, position)
        end = position + 12 + length
        if kind in _PNG_KEPT:
            kept.append(data[position:end])
        elif kind == b"eXIf":
            exif = data[position + 8 : end - 4]
        elif kind == b"acTL":
            (frames,) = struct.unpack_from(">I", data, position + 8)
        if kind == b"IEND":
            break
        position = end
    _check_frames(frames)
    return Still("PNG", width, height, b"".join(kept), exif, grey_bits)


def _still_of_jpeg(data: bytes) -> Still:
    """ITU-T T.81, annex B: markers, segments with their length, and coded data after each start of scan."""
    kept = [b"\xff\xd8"]
    exif = b""
    size: tuple[int, int] | None = None
    scans = 0
    passes = 0
    parts = 0
    found = _JPEG_MARKER.search(data, 2)
    while found is not None:
        parts += 1
        _check_parts(parts)
        marker = data[found.start() + 1]
        if marker == _END_OF_IMAGE:  # what follows is another picture: a preview, a gain map, a second eye
            kept.append(b"\xff\xd9")
            break
        if marker in (_START_OF_IMAGE, _TEMPORARY):  # markers without a segment
            found = _JPEG_MARKER.search(data, found.end())
            continue
        (length,) = struct.unpack_from(">H", data, found.end())
        end = found.end() + length
        following = _JPEG_MARKER.search(data, end)
        if marker == _START_OF_SCAN:
            scans += 1
            passes += data[found.end() + 2]  # the number of its components
            kept.append(data[found.start() : len(data) if following is None else following.start()])
        elif marker in _JPEG_KEPT:
            kept.append(data[found.start() : end])
            if marker in _JPEG_ARITHMETIC:
                raise ImageRefused("a JPEG with arithmetic coding", allowed="a JPEG with Huffman coding")
            if size is None and marker < _START_OF_IMAGE and marker not in _JPEG_TABLES:
                size = struct.unpack_from(">HH", data, found.end() + 3)
        elif marker == _APP1_EXIF and data.startswith(_JPEG_EXIF, found.end() + 2):
            exif = exif or data[found.end() + 2 : end]
        found = following
    if scans > MOST_SCANS:
        raise ImageRefused(f"a JPEG of {scans} scans", allowed=f"at most {MOST_SCANS} scans")
    height, width = size or (0, 0)
    return Still("JPEG", width, height, b"".join(kept), exif.removeprefix(_JPEG_EXIF), passes=passes)


def _still_of_webp(data: bytes) -> Still:
    """RFC 9649, section 2: chunks of a type, a length and data padded to an even length."""
    exif = b""
    frames = 0
    parts = 0
    position = 12
    while position + 8 <= len(data):
        parts += 1
        _check_parts(parts)
        kind, length = struct.unpack_from("<4sI", data, position)
        if kind == b"ANMF":
            frames += 1
        elif kind == b"EXIF" and not exif:
            exif = data[position + 8 : position + 8 + length]
        position += 8 + length + length % 2
    _check_frames(frames)
    width, height = _webp_size(data)
    return Still("WEBP", width, height, data, exif.removeprefix(_JPEG_EXIF))


def _webp_size(data: bytes) -> tuple[int, int]:
    """From the first chunk: a lossy frame, a lossless one (14 bits a side), or the canvas (24 bits)."""
    kind = data[12:16]
    if kind == b"VP8 ":
        width, height = struct.unpack_from("<HH", data, 26)
        return width & 0x3FFF, height & 0x3FFF
    if kind == b"VP8L":
        (bits,) = struct.unpack_from("<I", data, 21)
        return (bits & 0x3FFF) + 1, (bits >> 14 & 0x3FFF) + 1
    if kind == b"VP8X":
        low, middle, high, *others = struct.unpack_from("<6B", data, 24)
        width = low | middle << 8 | high << 16
        height = others[0] | others[1] << 8 | others[2] << 16
        return width + 1, height + 1
    return 0, 0


def _still_of_bmp(data: bytes) -> Still:
    """After 14 bytes of file header, OS/2's short header or a longer one; a negative height is top down."""
    (header,) = struct.unpack_from("<I", data, 14)
    sides = "<HH" if header == 12 else "<ii"
    width, height = struct.unpack_from(sides, data, 18)
    return Still("BMP", abs(width), abs(height), data, b"")


_WALKS: Final[Mapping[Format, Callable[[bytes], Still]]] = {
    "PNG": _still_of_png,
    "JPEG": _still_of_jpeg,
    "WEBP": _still_of_webp,
    "BMP": _still_of_bmp,
}
