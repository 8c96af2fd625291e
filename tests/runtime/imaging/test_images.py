"""Pictures of requests are decoded or refused naming the field; answers carry their metadata."""

from __future__ import annotations

import io
import time
from typing import Any

import numpy as np
import pytest
from PIL import Image

from intaglio.errors import InvalidRequest
from intaglio.imaging.images import decode_image, encode_image, read_metadata

MOST_PIXELS = 4096 * 4096


def encoded(image: Image.Image, kind: str = "PNG", **options: Any) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, kind, **options)
    return buffer.getvalue()


def test_a_picture_is_decoded() -> None:
    image = decode_image(
        encoded(Image.new("RGBA", (20, 10), (255, 0, 0, 0))), field="images[0]", most_pixels=200
    )
    assert (image.mode, image.size, image.getpixel((0, 0))) == ("RGB", (20, 10), (0, 0, 0))


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (b"hello", "not an image that can be read; allowed: PNG, JPEG or WEBP of at most 16777216 pixels"),
        (
            encoded(Image.new("RGB", (4, 4)), "BMP"),
            "not an image that can be read; allowed: PNG, JPEG or WEBP",
        ),
        (encoded(Image.new("RGB", (64, 64)))[:60], "damaged or truncated image: .*; allowed: a whole PNG"),
    ],
    ids=["text", "BMP", "truncated"],
)
def test_what_is_no_picture_is_refused_naming_the_field(data: bytes, message: str) -> None:
    with pytest.raises(InvalidRequest, match=rf"^images\[3\]: {message}"):
        decode_image(data, field="images[3]", most_pixels=MOST_PIXELS)


def test_a_jpeg_of_many_scans_is_refused_quickly() -> None:
    """4096 x 4096 pixels in 1500 scans took a worker nine seconds."""
    data = encoded(Image.linear_gradient("L").resize((4096, 4096)), "JPEG", progressive=True, quality=5)
    last = data.rindex(b"\xff\xda")
    scans = data[: data.rindex(b"\xff\xd9")] + data[last:-2] * 1500 + b"\xff\xd9"
    started = time.process_time()
    with pytest.raises(
        InvalidRequest, match=r"^images\[1\]: a JPEG of 15\d\d scans; allowed: at most 50 scans$"
    ):
        decode_image(scans, field="images[1]", most_pixels=MOST_PIXELS)
    assert time.process_time() - started < 0.2


@pytest.mark.parametrize("kind", ["JPEG", "WEBP"])
def test_metadata_of_earlier_versions_are_read(kind: str) -> None:
    """They stood in EXIF's UserComment, after our name."""

    def commented(comment: bytes) -> bytes:
        exif = Image.Exif()
        exif.get_ifd(0x8769)[0x9286] = comment
        return encoded(Image.new("RGB", (4, 4)), kind, exif=exif)

    assert read_metadata(commented(b'ASCII\0\0\0intaglio {"seed": 3}')) == {"seed": 3}
    assert read_metadata(commented(b"ASCII\0\0\0intaglios are prints")) is None
    assert read_metadata(commented(b'UNICODE\0intaglio {"seed": 3}')) is None


def test_same_pixels_and_metadata_give_the_same_bytes() -> None:
    pixels = np.zeros((8, 8, 3), np.uint8)
    for kind in ("png", "jpeg", "webp"):
        first, second = (encode_image(pixels, output_format=kind, metadata={"a": 1}) for _ in range(2))
        assert first == second
        assert read_metadata(first) == {"a": 1}
    assert read_metadata(encoded(Image.new("RGB", (4, 4)))) is None
