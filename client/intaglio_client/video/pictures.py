"""Whether a picture's file is whole, its size, and its pixels."""

from __future__ import annotations

import io
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, cast

from PIL import Image

from intaglio.errors import ConfigError
from intaglio.imaging.containers import Format, ImageRefused, still_from_bytes
from intaglio.imaging.decoding import decode_rgb, upright_size

__all__ = ["Picture", "check_pictures", "decoded"]

FORMATS: Final[tuple[Format, ...]] = ("PNG", "JPEG", "WEBP", "BMP")
MOST_PIXELS: Final = 178_956_970
"""Where Pillow too calls a picture a decompression bomb: twice its `MAX_IMAGE_PIXELS`."""
_THREADS: Final = 4


@dataclass(frozen=True, slots=True)
class Picture:
    """A file that is whole."""

    path: Path
    size: tuple[int, int]
    """Width and height as it is shown, EXIF's orientation applied."""


def check_pictures(paths: Sequence[Path], *, checked: Callable[[Path], None]) -> list[Picture]:
    """Check every file; `checked` is told of each one.

    Of a PNG the checksums of all chunks are compared, which is fast. Other formats have none: they are
    decoded.

    Raises:
        ConfigError: the first file that is damaged, with the number of other such files.
    """
    found: list[Picture | ConfigError] = []
    # Closing the results cancels what has not begun, so that Ctrl-C waits for no other file.
    with ThreadPoolExecutor(_THREADS) as pool, closing(cast(Any, pool.map(_checked, paths))) as results:
        for path, result in zip(paths, results, strict=True):
            checked(path)
            found.append(result)
    errors = [one for one in found if isinstance(one, ConfigError)]
    if errors:
        more = f" (and {len(errors) - 1} more such files)" if len(errors) > 1 else ""
        raise ConfigError(f"{errors[0]}{more}")
    return [one for one in found if isinstance(one, Picture)]


def _checked(path: Path) -> Picture | ConfigError:
    try:
        return _check(path)
    except ConfigError as error:
        return error


def _check(path: Path) -> Picture:
    data = _read(path)
    try:
        still = still_from_bytes(data, formats=FORMATS, most_pixels=MOST_PIXELS)
    except ImageRefused as error:
        raise _broken(path, error) from error
    if still.format != "PNG":
        return Picture(path, _decode(data, path).size)
    try:
        with Image.open(io.BytesIO(data), formats=["PNG"]) as image:
            image.verify()
    except Exception as error:  # Pillow documents no list of what damaged data raises
        problem = f"damaged or truncated PNG ({error})"
        raise ConfigError(f"{path}: {problem}; make it again, or leave it out") from error
    return Picture(path, upright_size(still))


def decoded(path: Path) -> Image.Image:
    """RGB and upright. Raises `ConfigError` naming `path`."""
    return _decode(_read(path), path)


def _decode(data: bytes, path: Path) -> Image.Image:
    try:
        return decode_rgb(data, formats=FORMATS, most_pixels=MOST_PIXELS)
    except ImageRefused as error:
        raise _broken(path, error) from error


def _read(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError as error:
        raise ConfigError(f"{path}: cannot be read: {error.strerror}") from error


def _broken(path: Path, error: ImageRefused) -> ConfigError:
    return ConfigError(f"{path}: {error.problem}; use {error.allowed}, or leave it out")
