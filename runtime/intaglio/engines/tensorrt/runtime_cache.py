"""What TensorRT-RTX compiled for this card, kept beside the engines so that a restart compiles nothing."""

from __future__ import annotations

import logging
from pathlib import Path
from typing import TYPE_CHECKING

from intaglio.whole_files import storage_problem, write_whole

if TYPE_CHECKING:
    import tensorrt as trt  # type: ignore[import-not-found,unused-ignore]

__all__ = ["RuntimeCache", "RuntimeCaches", "Shapes"]

log = logging.getLogger(__name__)

Shapes = tuple[tuple[int, ...], ...]
"""Of every input of a network, in the table's order."""


class RuntimeCache:
    """One engine's compiled kernels and the file that keeps them."""

    def __init__(self, cache: trt.IRuntimeCache, path: Path) -> None:
        """Reads the file at `path`, if there is one that this card can use."""
        self._cache = cache
        self._path = path
        try:
            known = path.read_bytes()
        except OSError:
            return
        if not cache.deserialize(known):
            log.info("%s: of another card, driver or version; it will be replaced", path)

    def write(self) -> None:
        """Replace the file atomically.

        Where that fails, the log says so, and the next start compiles again.
        """
        data = self._cache.serialize()
        if data is None:
            log.info("%s: not kept: TensorRT-RTX gives no data", self._path)
            return
        try:
            write_whole(self._path, memoryview(data))
        except OSError as error:
            log.info("%s: not kept: %s", self._path, storage_problem(error))


class RuntimeCaches:
    """The caches whose engines compiled something since their files were written."""

    def __init__(self) -> None:
        self._changed: list[RuntimeCache] = []
        self._compiled: dict[Path, set[Shapes]] = {}

    def compiled(self, path: Path) -> set[Shapes]:
        """Shapes that this process has compiled kernels for that are kept in the file at `path`.

        They stay when the engine is closed, so that nothing is written again when it comes back.
        """
        return self._compiled.setdefault(path, set())

    def expect_change(self, cache: RuntimeCache) -> None:
        """The next pass will compile something into `cache`."""
        if cache not in self._changed:
            self._changed.append(cache)

    def write(self) -> None:
        """Write every changed cache; the passes that compile must be done."""
        while self._changed:
            self._changed.pop().write()
