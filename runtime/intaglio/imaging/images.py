"""Image bytes in and out: size checked before decoding, any PNG, JPEG or WEBP to 8-bit RGB, metadata that
travels inside.
"""

from __future__ import annotations

import io
import json
import struct
import warnings
import zlib
from collections.abc import Mapping
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageOps, UnidentifiedImageError

from intaglio.contract.models import METADATA_KEY
from intaglio.errors import InvalidRequest
from intaglio.imaging.png import png_from_pixels

__all__ = ["decode_image", "encode_image", "read_metadata"]

INPUT_FORMATS: Final = ("PNG", "JPEG", "WEBP")
_MEDIA: Final = "PNG, JPEG or WEBP"
_USER_COMMENT, _EXIF_IFD = 0x9286, 0x8769
_COMMENT_ENCODING: Final = b"ASCII\0\0\0"
"""EXIF 2.3, 4.6.5: the first eight bytes of UserComment name its character code; JSON is written as ASCII."""

Pixels = NDArray[np.uint8]


def decode_image(data: bytes, *, field: str, most_pixels: int) -> Image.Image:
    """8-bit RGB image of encoded `data`, upright; transparency over black, 16-bit greys scaled, CMYK and
    palettes converted.

    Raises:
        InvalidRequest: not one of the formats, damaged, truncated, or more than `most_pixels` (told from the
            header).
    """
    allowed = f"{_MEDIA} of at most {most_pixels} pixels"
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", Image.DecompressionBombWarning)
            image: Image.Image = Image.open(io.BytesIO(data), formats=INPUT_FORMATS)
    except Image.DecompressionBombError as error:
        raise InvalidRequest(field, f"too many pixels: {error}", allowed=allowed) from error
    except UnidentifiedImageError as error:
        raise InvalidRequest(field, "not an image that can be read", allowed=allowed) from error
    except (OSError, ValueError, SyntaxError, EOFError, struct.error, zlib.error, MemoryError) as error:
        raise InvalidRequest(field, f"damaged image: {error}", allowed=allowed) from error
    with image:
        if image.width * image.height > most_pixels:
            raise InvalidRequest(field, f"{image.width}x{image.height} pixels", allowed=allowed)
        try:
            image.load()
            return _upright_rgb(image)
        except (OSError, ValueError, SyntaxError, EOFError, struct.error, zlib.error, IndexError) as error:
            raise InvalidRequest(
                field, f"damaged or truncated image: {error}", allowed=f"a whole {_MEDIA}"
            ) from error


def _upright_rgb(image: Image.Image) -> Image.Image:
    ImageOps.exif_transpose(image, in_place=True)  # a copy of a large picture takes a millisecond
    upright = image
    if upright.mode.startswith("I"):  # 16-bit grey: Pillow's own conversion clips at 255
        values = np.asarray(upright, dtype=np.float64) / 257.0
        return Image.fromarray(values.round().clip(0, 255).astype(np.uint8)).convert("RGB")
    if upright.has_transparency_data:
        layered = upright.convert("RGBA")
        return Image.alpha_composite(Image.new("RGBA", layered.size, (0, 0, 0, 255)), layered).convert("RGB")
    return upright if upright.mode == "RGB" else upright.convert("RGB")


def encode_image(pixels: Pixels, *, output_format: str, metadata: Mapping[str, Any]) -> bytes:
    """Encoded [H, W, 3] `pixels` with `metadata` as JSON inside: a PNG text chunk, or EXIF UserComment in
    JPEG and WEBP.
    """
    text = json.dumps(metadata, sort_keys=True, ensure_ascii=True)
    if output_format == "png":
        return png_from_pixels(pixels, text={METADATA_KEY: text})
    image, buffer = Image.fromarray(pixels, "RGB"), io.BytesIO()
    exif = Image.Exif()
    exif.get_ifd(_EXIF_IFD)[_USER_COMMENT] = _COMMENT_ENCODING + f"{METADATA_KEY} {text}".encode("ascii")
    if output_format == "jpeg":
        image.save(buffer, "JPEG", quality=95, subsampling=0, exif=exif)
    elif output_format == "webp":
        image.save(buffer, "WEBP", quality=95, exif=exif)
    else:
        raise InvalidRequest(
            "output_format", f"{output_format!r} is unknown", allowed="one of png, jpeg, webp"
        )
    return buffer.getvalue()


def read_metadata(data: bytes) -> dict[str, Any] | None:
    """The metadata that `encode_image` put into `data`, None where there is none."""
    with Image.open(io.BytesIO(data), formats=INPUT_FORMATS) as image:
        text = image.info.get(METADATA_KEY)
        if text is None:
            comment = image.getexif().get_ifd(_EXIF_IFD).get(_USER_COMMENT, b"")
            comment = comment if isinstance(comment, bytes) else str(comment).encode()
            prefix = METADATA_KEY.encode() + b" "
            body = comment.removeprefix(_COMMENT_ENCODING)
            text = body.removeprefix(prefix) if body.startswith(prefix) else None
    value = json.loads(text) if text else None
    return value if isinstance(value, dict) else None
