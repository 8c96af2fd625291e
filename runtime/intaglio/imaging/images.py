"""Images of requests are decoded; images of answers are encoded, with their metadata inside."""

from __future__ import annotations

import io
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from intaglio import __version__
from intaglio.contract.models import METADATA_KEY
from intaglio.errors import InvalidRequest
from intaglio.imaging.containers import Format, ImageRefused
from intaglio.imaging.decoding import decode_rgb
from intaglio.imaging.generation_text import generation_text
from intaglio.imaging.png import png_from_pixels
from intaglio.imaging.xmp import xmp_packet, xmp_parameters

__all__ = [
    "PARAMETERS_KEY",
    "check_metadata",
    "decode_image",
    "encode_image",
    "read_encoded",
    "read_metadata",
]

INPUT_FORMATS: Final[tuple[Format, ...]] = ("PNG", "JPEG", "WEBP")
PARAMETERS_KEY: Final = "parameters"
"""Key of the PNG text chunk that holds the text of `generation_text`: the webui's."""
_XMP_KEY: Final = "XML:com.adobe.xmp"
"""Key of the PNG text chunk that holds XMP (XMP specification, part 3, 1.1.5)."""
_XMP_MARKER: Final = b"http://ns.adobe.com/xap/1.0/\0"
"""What XMP begins with in a JPEG's segment APP1 (XMP specification, part 3, 1.1.3)."""
_SOFTWARE: Final = f"intaglio {__version__}"
_USER_COMMENT: Final = 0x9286
_EXIF_IFD: Final = 0x8769
_COMMENT_ENCODING: Final = b"UNICODE\0"
"""EXIF 2.3, 4.6.5: the first eight bytes of UserComment name its character code.

The text is UTF-16 in the byte order of the EXIF block. Both are big-endian, as the webui writes them.
"""
_EARLIER_ENCODING: Final = b"ASCII\0\0\0"
"""Character code of the UserComment that earlier versions wrote."""
_LARGEST_SEGMENT: Final = 65_533
"""Bytes of a JPEG's segment after its length."""

Pixels = NDArray[np.uint8]


def read_encoded(path: Path, *, most_bytes: int) -> bytes:
    """The bytes of the file at `path`, of which no more than allowed are read.

    Raises:
        InvalidRequest: there are more.
        OSError: it cannot be read.
    """
    with path.open("rb") as file:
        data = file.read(most_bytes + 1)
    if len(data) > most_bytes:
        raise InvalidRequest(str(path), f"more than {most_bytes} bytes", allowed=f"at most {most_bytes}")
    return data


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


def encode_image(
    pixels: Pixels, *, output_format: str, metadata: Mapping[str, Any], source_type: bool = True
) -> bytes:
    """Encoded [H, W, 3] `pixels` with `metadata` inside, in the places where others look too.

        what                        PNG                     JPEG, WEBP
        all of `metadata`, JSON     tEXt `intaglio`         XMP `intaglio:parameters`
        `generation_text`           iTXt `parameters`       EXIF UserComment
        made by a trained model     XMP in iTXt             XMP; without `source_type`, not stated

    Raises:
        InvalidRequest: an unknown format, or metadata that do not fit into a JPEG's segments.
    """
    text = generation_text(metadata)
    if output_format == "png":
        xmp = xmp_packet(software=_SOFTWARE, source_type=source_type)
        notes = {} if text is None else {PARAMETERS_KEY: text}
        international = {**notes, _XMP_KEY: xmp.decode()}
        parameters = json.dumps(metadata, sort_keys=True, ensure_ascii=True)
        return png_from_pixels(pixels, text={METADATA_KEY: parameters}, international=international)
    if output_format not in ("jpeg", "webp"):
        raise InvalidRequest(
            "output_format", f"{output_format!r} is unknown", allowed="one of png, jpeg, webp"
        )
    xmp = _own_xmp(metadata, source_type=source_type)
    exif = _exif(text)
    image = Image.fromarray(pixels, "RGB")
    buffer = io.BytesIO()
    if output_format == "jpeg":
        image.save(
            buffer, "JPEG", quality=95, subsampling=0, exif=_segment(exif), extra=_app1(_XMP_MARKER + xmp)
        )
    else:
        image.save(buffer, "WEBP", quality=95, exif=exif, xmp=xmp)
    return buffer.getvalue()


def check_metadata(metadata: Mapping[str, Any], output_format: str, *, source_type: bool = True) -> None:
    """Raise InvalidRequest where a picture cannot hold `metadata`, before it is drawn.

    The arguments are those of `encode_image`.
    """
    if output_format == "jpeg":
        _segment(_exif(generation_text(metadata)))
        _app1(_XMP_MARKER + _own_xmp(metadata, source_type=source_type))


def _own_xmp(metadata: Mapping[str, Any], *, source_type: bool) -> bytes:
    """The XMP of a JPEG or WEBP, which holds all of `metadata`."""
    parameters = json.dumps(metadata, sort_keys=True, ensure_ascii=True)
    return xmp_packet(software=_SOFTWARE, source_type=source_type, parameters=parameters)


def _exif(text: str | None) -> bytes:
    """An EXIF block with `text` as UserComment."""
    exif = Image.Exif()
    exif.endian = ">"
    if text is not None:
        exif.get_ifd(_EXIF_IFD)[_USER_COMMENT] = _COMMENT_ENCODING + text.encode("utf-16-be", "replace")
    return exif.tobytes()


def _segment(data: bytes) -> bytes:
    """`data`, if it fits into a JPEG's segment."""
    if len(data) > _LARGEST_SEGMENT:
        problem = f"{len(data)} bytes of metadata do not fit into a JPEG"
        raise InvalidRequest("output_format", problem, allowed="png or webp, or a shorter prompt")
    return data


def _app1(data: bytes) -> bytes:
    """`data` as a JPEG's segment APP1."""
    return b"\xff\xe1" + (len(_segment(data)) + 2).to_bytes(2, "big") + data


def read_metadata(data: bytes) -> dict[str, Any] | None:
    """The metadata that `encode_image` put into `data`, None where there is none.

    Earlier versions wrote the JSON of JPEG and WEBP into EXIF's UserComment; it is found there too.
    """
    with Image.open(io.BytesIO(data), formats=INPUT_FORMATS) as image:
        text = image.info.get(METADATA_KEY)
        if text is None:
            text = xmp_parameters(_xmp_of(image))
        if text is None:
            text = _comment_parameters(image)
    value = json.loads(text) if text else None
    return value if isinstance(value, dict) else None


def _comment_parameters(image: Image.Image) -> str | None:
    """The JSON after our name in EXIF's UserComment; None where it holds something else."""
    comment = image.getexif().get_ifd(_EXIF_IFD).get(_USER_COMMENT, b"")
    start = _EARLIER_ENCODING + f"{METADATA_KEY} ".encode("ascii")
    if not isinstance(comment, bytes) or not comment.startswith(start):
        return None
    return comment.removeprefix(start).decode("ascii")


def _xmp_of(image: Image.Image) -> bytes:
    """The XMP packet of a JPEG or WEBP; empty where it has none."""
    for name, segment in getattr(image, "applist", ()):
        if name == "APP1" and segment.startswith(_XMP_MARKER):
            return bytes(segment.removeprefix(_XMP_MARKER))
    packet = image.info.get("xmp", b"")
    return packet if isinstance(packet, bytes) else b""
