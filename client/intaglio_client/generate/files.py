"""Where images are written. No file is overwritten unless the user asks for that."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from itertools import count
from pathlib import Path
from typing import Final

from intaglio.errors import InvalidRequest
from intaglio.whole_files import write_new, write_whole
from intaglio_client.image import Image

__all__ = ["DEFAULT_NAME", "OutputFiles"]

DEFAULT_NAME: Final = "out.png"


class OutputFiles:
    """The files of one call."""

    def __init__(self, out: Path | None, *, overwrite: bool = False) -> None:
        """`out` None: `out.png`, or the first of `out-2.png`, `out-3.png` ... that is free."""
        self.out = Path(DEFAULT_NAME) if out is None else out
        self._is_default = out is None
        self._overwrite = overwrite

    def check(self, images: int) -> None:
        """Check, before anything is asked for, that `images` images can be written.

        Raises:
            InvalidRequest: a file of that name exists.
        """
        if self._overwrite or self._is_default:
            return
        for path in _paths(self.out, images):
            if path.exists():
                raise InvalidRequest("out", f"{path} exists", allowed="another name, or --force to overwrite")

    def save(self, images: Sequence[Image], *, note: Callable[[str], None]) -> dict[Path, Image]:
        """Write each image as a whole. Where a name was taken meanwhile, a free one is used, with a note.

        Raises:
            OSError: a file cannot be written; nothing of it is left.
        """
        paths = _paths(self.out, len(images))
        if self._overwrite:
            for path, image in zip(paths, images, strict=True):
                write_whole(path, image.data)
        else:
            paths = [self._written(path, image) for path, image in zip(paths, images, strict=True)]
        for wanted, path in zip(_paths(self.out, len(images)), paths, strict=True):
            if wanted != path and not self._is_default:
                note(f"{wanted} appeared meanwhile, so the image is in {path}")
        return dict(zip(paths, images, strict=True))

    def _written(self, path: Path, image: Image) -> Path:
        """The first free name after `path`, with the image in it."""
        for number in count(1):
            name = path if number == 1 else path.with_name(f"{path.stem}-{number}{path.suffix}")
            try:
                write_new(name, image.data)
            except FileExistsError:
                continue
            return name
        raise AssertionError("numbers do not end")


def _paths(out: Path, images: int) -> list[Path]:
    """`fox.png`, or `fox-0.png`, `fox-1.png` ... of several images."""
    if images == 1:
        return [out]
    return [out.with_name(f"{out.stem}-{index}{out.suffix}") for index in range(images)]
