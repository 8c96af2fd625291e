"""Images of requests are decoded; images of answers are encoded, with their metadata inside."""

from __future__ import annotations

import io
import json
from collections.abc import Mapping
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from intaglio.contract.models import METADATA_KEY
from intaglio.errors import InvalidRequest
from intaglio.imaging.containers import Format, ImageRefused
from intaglio.imaging.decoding import decode_rgb
from intaglio.imaging.png import png_from_pixels

__all__ = ["decode_image", "encode_image", "read_metadata"]

INPUT_FORMATS: Final[tuple[Format, ...]] = ("PNG", "JPEG", "WEBP")
_USER_COMMENT: Final = 0x9286
_EXIF_IFD: Final = 0x8769
_COMMENT_ENCODING: Final = b"ASCII\0\0\0"
"""EXIF 2.3, 4.6.5: the first eight bytes of UserComment name its character code; JSON is written as ASCII."""

Pixels = NDArray[np.uint8]


def decode_image(data: bytes, *, field: str, most_pixels: int) -> Image.Image:
    """8-bit RGB image of encoded `data`, upright; `intaglio.imaging.decoding` says how others are converted.

    Raises:
        InvalidRequest: naming `field`: not a PNG, JPEG or WEBP, damaged, truncated, animated, more than
            `most_pixels`, or more work to decode than its size accounts for.
    """
    try:
        return decode_rgb(data, formats=INPUT_FORMATS, most_pixels=most_pixels)
    except ImageRefused as error:
        raise InvalidRequest(field, error.problem, allowed=error.allowed) from error


def encode_image(pixels: Pixels, *, output_format: str, metadata: Mapping[str, Any]) -> bytes:
    """Encoded [H, W, 3] `pixels` with `metadata` as JSON inside: a PNG text chunk, or EXIF UserComment in
    JPEG and WEBP.
    """
    text = json.dumps(metadata, sort_keys=True, ensure_ascii=True)
    if output_format == "png":
        return png_from_pixels(pixels, text={METADATA_KEY: text})
    image = Image.fromarray(pixels, "RGB")
    buffer = io.BytesIO()
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
