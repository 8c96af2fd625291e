"""PNG of 8-bit RGB pixels in threads: at SDXL's size one core takes a tenth of the time of making the image to encode it.

Rows are filtered by `Up` (each byte less the one above: PNG specification, section 9.2), then compressed in bands as pigz does it:
every band but the last ends in a full flush, so their deflate streams join into one. Bands depend on the picture's height alone, so
a picture has the same bytes whatever the machine.
"""

from __future__ import annotations

import os
import struct
import zlib
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from typing import Final

import numpy as np
from numpy.typing import NDArray

__all__ = ["png_from_pixels"]

_SIGNATURE: Final = b"\x89PNG\r\n\x1a\n"
_UP: Final = 2
_LEVEL: Final = 1
"""Higher levels take several times as long for a few per cent."""
_BAND_ROWS: Final = 64
_ZLIB_HEADER: Final = b"\x78\x01"
_THREADS: Final = 8


def png_from_pixels(pixels: NDArray[np.uint8], *, text: Mapping[str, str]) -> bytes:
    """[H, W, 3] `pixels` as a PNG file with `text` in tEXt chunks (Latin-1)."""
    height, width, _ = pixels.shape
    rows = np.empty((height, 1 + 3 * width), np.uint8)
    flat = pixels.reshape(height, 3 * width)
    rows[:, 0] = _UP
    rows[0, 1:] = flat[0]
    np.subtract(flat[1:], flat[:-1], out=rows[1:, 1:])
    starts = range(0, height, _BAND_ROWS)
    bands = [(rows[start : start + _BAND_ROWS], start + _BAND_ROWS >= height) for start in starts]
    with ThreadPoolExecutor(min(_THREADS, len(os.sched_getaffinity(0)))) as pool:
        body = b"".join(pool.map(_deflate, bands))
    data = _ZLIB_HEADER + body + struct.pack(">I", zlib.adler32(rows.data))
    header = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    notes = [_chunk(b"tEXt", name.encode("latin-1") + b"\0" + value.encode("latin-1")) for name, value in text.items()]
    return b"".join([_SIGNATURE, _chunk(b"IHDR", header), *notes, _chunk(b"IDAT", data), _chunk(b"IEND", b"")])


def _deflate(band: tuple[NDArray[np.uint8], bool]) -> bytes:
    rows, last = band
    compressor = zlib.compressobj(_LEVEL, zlib.DEFLATED, -zlib.MAX_WBITS)
    return compressor.compress(rows.data) + compressor.flush(zlib.Z_FINISH if last else zlib.Z_FULL_FLUSH)


def _chunk(kind: bytes, data: bytes) -> bytes:
    return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(data, zlib.crc32(kind)))
