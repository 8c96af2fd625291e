"""Which pictures become a video, and in which order.

A folder stands for its pictures, a manifest of `intaglio batch` for the pictures that it accepted, and a
pattern for the files that it matches. Names are in natural order: `frame2` comes before `frame10`.
"""

from __future__ import annotations

import glob
import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from intaglio.errors import ConfigError
from intaglio_client.batch.manifest import MANIFEST_NAME, read_manifest

__all__ = ["SUFFIXES", "Sources", "natural_key", "sources_of"]

SUFFIXES: Final = (".png", ".jpg", ".jpeg", ".webp", ".bmp")
_DIGITS: Final = re.compile(r"(\d+)")


@dataclass(frozen=True, slots=True)
class Sources:
    """Pictures in the order in which they are shown."""

    paths: list[Path]
    of_batch: bool = False
    """Whether a manifest names some of them."""


def sources_of(inputs: Sequence[str], *, as_given: bool = False) -> Sources:
    """The files that `inputs` name: folders, manifests, pictures and patterns such as `frames/*.png`.

    The pictures of a folder or a pattern are in natural order, those of a manifest in its own. So are several
    pictures that are named, unless `as_given`: a shell puts `frame10.png` before `frame2.png`.

    Raises:
        ConfigError: an input names nothing, or holds no picture.
    """
    if all(_is_picture(Path(one)) and Path(one).is_file() for one in inputs):
        named = [Path(one) for one in inputs]
        return Sources(named if as_given else sorted(named, key=natural_key))
    paths: list[Path] = []
    of_batch = False
    for one in inputs:
        manifest = _manifest_of(Path(one))
        paths += _pictures_of(one) if manifest is None else accepted_pictures(manifest)
        of_batch |= manifest is not None
    return Sources(paths, of_batch)


def _manifest_of(path: Path) -> Path | None:
    if path.is_dir():
        manifest = path / MANIFEST_NAME
        return manifest if manifest.is_file() else None
    return path if path.suffix == ".jsonl" else None


def _pictures_of(given: str) -> list[Path]:
    path = Path(given)
    if path.is_dir():
        return _pictures_in(path)
    if path.is_file():
        return [path]
    found = _sorted(Path(one) for one in glob.glob(given, recursive=True) if _is_picture(Path(one)))
    if not found:
        raise ConfigError(
            f"{given}: no such picture, folder or manifest, and no pattern that matches a picture"
            f" ({', '.join(SUFFIXES)})"
        )
    return found


def _pictures_in(folder: Path) -> list[Path]:
    found = _sorted(path for path in folder.iterdir() if _is_picture(path))
    if not found:
        raise ConfigError(f"{folder}: holds no picture ({', '.join(SUFFIXES)}) and no {MANIFEST_NAME}")
    return found


def accepted_pictures(manifest: Path) -> list[Path]:
    """The pictures that a batch accepted, in the order of its items.

    Raises:
        ConfigError: the manifest is damaged, or none is accepted.
    """
    accepted = [record for record in read_manifest(manifest) if record["accepted"]]
    if not accepted:
        raise ConfigError(f"{manifest}: accepts no picture; a video needs one")
    return [manifest.parent / record["file"] for record in accepted]


def natural_key(path: Path) -> list[tuple[int, int | str]]:
    """A key that sorts runs of digits by their value: `frame2.png` before `frame10.png`."""
    parts = _DIGITS.split(str(path))  # every second one is digits
    key: list[tuple[int, int | str]] = [
        (0, int(part)) if index % 2 else (1, part.casefold()) for index, part in enumerate(parts)
    ]
    return [*key, (1, str(path))]  # of names that differ only in leading zeros or case


def _sorted(paths: Iterable[Path]) -> list[Path]:
    return sorted(paths, key=natural_key)


def _is_picture(path: Path) -> bool:
    return path.suffix.lower() in SUFFIXES and not path.is_dir() and not path.name.startswith(".")
