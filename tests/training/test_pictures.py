"""Pictures: the pixels that serving makes of the same file, at the run's size."""

from __future__ import annotations

import io
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays
from PIL import Image

from intaglio.imaging.images import decode_image
from intaglio_train import DataError
from intaglio_train.buckets import CropPlacing
from intaglio_train.pictures import cut, decode_picture, read_bytes

CASES = Path(__file__).parents[1] / "runtime" / "imaging" / "pictures"
CHANNELS = {"L": 1, "LA": 2, "P": 1, "RGB": 3, "RGBA": 4, "CMYK": 4, "I;16": 2}
PAIRS = [("PNG", mode) for mode in ("L", "LA", "P", "RGB", "RGBA", "I;16")]
PAIRS += [("JPEG", mode) for mode in ("L", "RGB", "CMYK")] + [("WEBP", "RGB"), ("WEBP", "RGBA")]


def encoded(image: Image.Image, kind: str = "PNG", **options: Any) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, kind, **options)
    return buffer.getvalue()


def assert_alike(data: bytes) -> None:
    ours = decode_picture(data, Path("a.png"))
    served = decode_image(data, field="images[0]", most_pixels=4096 * 4096)
    np.testing.assert_array_equal(np.asarray(ours), np.asarray(served))


@given(st.sampled_from(PAIRS), st.integers(0, 9), st.data())
def test_any_picture_gives_the_pixels_of_serving(pair: tuple[str, str], orientation: int, data: Any) -> None:
    kind, mode = pair
    size = data.draw(st.tuples(st.integers(1, 9), st.integers(1, 9)))
    raw = data.draw(arrays.arrays(np.uint8, size[0] * size[1] * CHANNELS[mode]))
    image = Image.frombytes(mode, size, raw.tobytes())
    if mode == "P":
        image.putpalette(data.draw(st.binary(min_size=768, max_size=768)))
    exif = Image.Exif()
    exif[0x0112] = orientation
    assert_alike(encoded(image, kind, exif=exif))


def test_the_cases_that_differed_are_alike() -> None:
    for name in ("d16.png", "rgba.png", "odd-exif.png"):
        assert_alike((CASES / name).read_bytes())
    ramp = np.asarray(decode_picture((CASES / "d16.png").read_bytes(), CASES / "d16.png"))
    assert ramp.mean() == pytest.approx(127.5, abs=0.1)


def test_refusals_name_the_file(tmp_path: Path) -> None:
    frames = [Image.new("RGB", (8, 8), color) for color in ("red", "green")]
    data = encoded(frames[0], "WEBP", save_all=True, append_images=frames[1:], lossless=True)
    with pytest.raises(
        DataError, match=r"^a\.webp: unreadable image \(animated: 2 frames\); use a picture of one frame"
    ):
        decode_picture(data, Path("a.webp"))
    with pytest.raises(DataError, match=r"b\.png: no such image"):
        read_bytes(tmp_path / "b.png")
    with pytest.raises(DataError, match="unreadable image"):
        read_bytes(tmp_path)


@pytest.mark.parametrize(
    ("size", "given_size"), [((64, 64), (100, 80)), ((64, 32), (50, 90)), ((24, 40), (7, 5))]
)
@pytest.mark.parametrize("resampling", [Image.Resampling.LANCZOS, Image.Resampling.BILINEAR])
def test_fitting_is_covering_and_cutting(
    size: tuple[int, int], given_size: tuple[int, int], resampling: Image.Resampling
) -> None:
    shape = (given_size[1], given_size[0], 3)
    noise = np.random.default_rng(0).integers(100, 150, shape, np.uint8)  # so that no pass over it is clipped
    image = Image.fromarray(noise)
    placement = CropPlacing(size).place(given_size)
    pixels = cut(image, placement, resampling)
    top, left = placement.corner
    scale = max(size[0] / given_size[0], size[1] / given_size[1])
    covering = image.resize((round(given_size[0] * scale), round(given_size[1] * scale)), resampling)
    expected = covering.crop((left, top, left + size[0], top + size[1]))
    np.testing.assert_allclose(pixels.astype(int), np.asarray(expected).astype(int), atol=2)


def test_a_long_strip_takes_no_more_memory_than_it_has() -> None:
    """To cover 1024x1024 a column of 16384 pixels would grow to 17 gigapixels."""
    placement = CropPlacing((1024, 1024)).place((1, 16384))
    pixels = cut(Image.new("RGB", (1, 16384), "red"), placement, Image.Resampling.LANCZOS)
    assert pixels.shape == (1024, 1024, 3)
    assert placement.corner == ((16384 * 1024 - 1024) // 2, 0)
    assert (pixels == [255, 0, 0]).all()
