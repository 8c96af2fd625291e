"""Files against their digests while something else goes on: hashing the engines of SDXL takes as long as
opening them.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from types import TracebackType
from typing import Final, Self

from intaglio.builds.manifest import FileDigest, check_files

__all__ = ["FileChecks"]

_WORKERS: Final = 4


class FileChecks:
    """Checks in threads; leaving the `with` block waits for all of them and raises the first failure.

    A file's size is looked at before its check is put off, so that a missing or truncated one is never
    opened.
    """

    def __init__(self, folder: Path, *, command: str) -> None:
        self._folder = folder
        self._command = command
        self._pool = ThreadPoolExecutor(min(_WORKERS, len(os.sched_getaffinity(0))))
        self._running: list[Future[None]] = []

    def __enter__(self) -> Self:
        return self

    def start(self, files: Mapping[str, FileDigest]) -> None:
        """Begin to check `files`.

        Raises:
            EngineMismatch: one is missing or of another size.
        """
        for name, digest in files.items():
            path = self._folder / name
            if not path.is_file() or path.stat().st_size != digest.size:
                check_files(self._folder, {name: digest}, command=self._command)
            self._running.append(
                self._pool.submit(check_files, self._folder, {name: digest}, command=self._command)
            )

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Raises EngineMismatch for a changed file, also where opening it has failed already: that is the
        reason.
        """
        self._pool.shutdown(wait=True, cancel_futures=False)
        for check in self._running:
            if (failure := check.exception()) is not None:
                raise failure from error
