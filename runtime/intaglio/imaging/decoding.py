"""Encoded pictures -> upright 8-bit RGB: the one decoder of what clients send and what training reads.

Transparency is composed over black. Grey of 16 bits is scaled to 8 (65535 becomes 255); colour of 16 bits
keeps its upper 8. CMYK and palettes are converted. EXIF's orientation is applied; EXIF that cannot be read
counts as none. Colour profiles are not applied. Animations are refused. Of a JPEG that holds several pictures
the first one counts.
"""

from __future__ import annotations

import io
import struct
from collections.abc import Mapping, Sequence
from typing import Final

import numpy as np
from PIL import Image
from PIL.BmpImagePlugin import BmpImageFile
from PIL.ImageFile import ImageFile
from PIL.JpegImagePlugin import JpegImageFile
from PIL.PngImagePlugin import PngImageFile
from PIL.WebPImagePlugin import WebPImageFile

from intaglio.imaging.containers import Format, ImageRefused, Still, still_from_bytes

__all__ = ["decode_rgb", "orientation_of", "upright_size"]

_READERS: Final[Mapping[Format, type[ImageFile]]] = {
    "PNG": PngImageFile,
    "JPEG": JpegImageFile,
    "WEBP": WebPImageFile,
    "BMP": BmpImageFile,
}
_CONVERTED: Final = frozenset({"1", "L", "LA", "P", "RGB", "RGBA", "CMYK"})
"""Modes whose conversion to RGB by Pillow loses nothing but precision."""
_ORIENTATION: Final = 0x0112
_TURNS: Final[Mapping[int, Image.Transpose]] = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}
"""What turns a picture of each EXIF orientation upright; 1 is upright."""
_ON_THEIR_SIDE: Final = frozenset({5, 6, 7, 8})
"""Orientations that swap width and height."""
_INTEGERS: Final[Mapping[int, str]] = {1: "B", 3: "H", 4: "I"}
"""TIFF's types of whole numbers, as `struct` names them."""


def decode_rgb(data: bytes, *, formats: Sequence[Format], most_pixels: int) -> Image.Image:
    """The picture in `data`, RGB and upright.

    Raises:
        ImageRefused: not one of `formats`, damaged, truncated, animated, larger than `most_pixels`, or more
            work to decode than `intaglio.imaging.containers` allows. All but damage is told before decoding.
    """
    still = still_from_bytes(data, formats=formats, most_pixels=most_pixels)
    whole = f"a whole {still.format}"
    # Pillow documents no list of what its decoders raise for damaged data.
    try:
        image = _READERS[still.format](io.BytesIO(still.data))
        if image.size != (still.width, still.height):
            raise ImageRefused("damaged image: two headers of different size", allowed=whole)
        image.load()
        upright = _rgb_of(image, still.grey_bits)  # a palette that is too short shows only here
    except ImageRefused:
        raise
    except Exception as error:
        raise ImageRefused(f"damaged or truncated image: {error}", allowed=whole) from error
    turn = _TURNS.get(orientation_of(still.exif))
    return upright if turn is None else upright.transpose(turn)


def _rgb_of(image: Image.Image, grey_bits: int) -> Image.Image:
    if image.mode.startswith("I"):
        return _rgb_of_deep_grey(image)
    if image.mode not in _CONVERTED:
        raise ImageRefused(
            f"pixels of mode {image.mode}", allowed=f"one of {', '.join(sorted(_CONVERTED))}, I"
        )
    if image.has_transparency_data:
        _scale_transparent_value(image, grey_bits)
        layered = image.convert("RGBA")
        black = Image.new("RGBA", layered.size, (0, 0, 0, 255))
        return Image.alpha_composite(black, layered).convert("RGB")
    return image if image.mode == "RGB" else image.convert("RGB")


def _rgb_of_deep_grey(image: Image.Image) -> Image.Image:
    """16-bit grey. Pillow's own conversion cuts at 255 instead of scaling."""
    samples = np.asarray(image)
    scaled = (samples.astype(np.float32) / 257.0).round().clip(0, 255).astype(np.uint8)
    transparent = image.info.get("transparency")
    if transparent is not None:
        scaled[samples == transparent] = 0
    return Image.fromarray(scaled).convert("RGB")


def _scale_transparent_value(image: Image.Image, grey_bits: int) -> None:
    """A PNG names its transparent sample in the file's bits; Pillow compares it with samples of 8 bits."""
    value = image.info.get("transparency")
    if image.mode == "L" and isinstance(value, int) and grey_bits < 8:
        image.info["transparency"] = value * 255 // (2**grey_bits - 1)
    elif image.mode == "RGB" and isinstance(value, tuple) and grey_bits == 16:
        image.info["transparency"] = tuple(sample >> 8 for sample in value)


def orientation_of(exif: bytes) -> int:
    """Orientation 1 to 8 that EXIF's first directory names; 1 where it names none or cannot be read.

    Only the directory's entries are read, in place: they may claim any amount of data (TIFF 6.0, section 2).
    """
    order = {b"II*\0": "<", b"MM\0*": ">"}.get(exif[:4])
    if order is None:
        return 1
    try:
        (directory,) = struct.unpack_from(f"{order}I", exif, 4)
        (count,) = struct.unpack_from(f"{order}H", exif, directory)
        for entry in range(directory + 2, directory + 2 + 12 * count, 12):
            tag, kind = struct.unpack_from(f"{order}HH", exif, entry)
            if tag == _ORIENTATION and kind in _INTEGERS:
                (value,) = struct.unpack_from(f"{order}{_INTEGERS[kind]}", exif, entry + 8)
                return value if value in _TURNS else 1
    except struct.error:
        return 1
    return 1


def upright_size(still: Still) -> tuple[int, int]:
    """Width and height of what `decode_rgb` makes of the file."""
    if orientation_of(still.exif) in _ON_THEIR_SIDE:
        return still.height, still.width
    return still.width, still.height
