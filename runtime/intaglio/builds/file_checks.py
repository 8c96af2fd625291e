"""Whether the files of a build are those that were built: one comparison, for whoever reads them."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Callable, Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from types import TracebackType
from typing import Final, Self

from pydantic import Field

from intaglio.contract.yaml_files import Sha256, Strict
from intaglio.errors import EngineMismatch

__all__ = [
    "CheckedFiles",
    "FileChecks",
    "FileDigest",
    "check_files",
    "file_digest",
    "file_problem",
    "files_problem",
]

_WORKERS: Final = 4


class FileDigest(Strict):
    """Size and sha256 of one file."""

    sha256: Sha256
    size: int = Field(ge=0)


DigestReader = Callable[[Path], FileDigest]


def file_digest(path: Path) -> FileDigest:
    """sha256 and size of `path`, read once."""
    with path.open("rb") as file:
        digest = hashlib.file_digest(file, "sha256")
        return FileDigest(sha256=digest.hexdigest(), size=file.tell())


def file_problem(
    folder: Path, name: str, expected: FileDigest, *, digest: DigestReader | None = file_digest
) -> str | None:
    """What is wrong with the file `name` in `folder`; None when it is the one that was built.

    `digest` reads a file's digest, for instance from a cache. With None only sizes are compared, which takes
    no time.
    """
    path = (folder / name).resolve()
    if not path.is_relative_to(folder.resolve()):
        return f"{name} lies outside {folder}"
    if not path.is_file():
        return f"{name} is missing"
    size = path.stat().st_size
    if size != expected.size:
        return f"{name} has {size} bytes, not {expected.size}"
    if digest is not None and digest(path).sha256 != expected.sha256:
        return f"{name} was changed after it was built"
    return None


def files_problem(
    folder: Path, files: Mapping[str, FileDigest], *, digest: DigestReader | None = file_digest
) -> str | None:
    """The first problem that `file_problem` finds among `files`."""
    for name, expected in files.items():
        problem = file_problem(folder, name, expected, digest=digest)
        if problem is not None:
            return problem
    return None


def check_files(
    folder: Path,
    files: Mapping[str, FileDigest],
    *,
    command: str,
    digest: DigestReader | None = file_digest,
) -> None:
    """Raise where a file of `folder` is not the one that was built; `command` builds it again.

    Raises:
        EngineMismatch: names the file and says what is wrong with it.
    """
    problem = files_problem(folder, files, digest=None)
    if problem is None and digest is not None:
        problem = files_problem(folder, files, digest=digest)
        # A build believes sizes and times, which may be as they were.
        command = f"{command} --check"
    if problem is not None:
        raise EngineMismatch(f"{folder}: {problem}", command=command)


class CheckedFiles:
    """Files that were compared with the build. One that is opened later is compared again only where it was
    changed since then: hashing an engine takes longer than opening it.
    """

    def __init__(self, folder: Path, *, command: str) -> None:
        self._folder = folder
        self._command = command
        self._stamps: dict[str, tuple[int, int]] = {}
        """Inode and time of the last change."""

    def note(self, files: Mapping[str, FileDigest]) -> None:
        """Whatever changes in `files` from now on, `check` notices; somebody compares them now.

        Raises:
            EngineMismatch: a file is missing or has another size.
        """
        check_files(self._folder, files, command=self._command, digest=None)
        for name in files:
            self._stamps[name] = self._stamp(name)

    def check(self, files: Mapping[str, FileDigest]) -> None:
        """Compare those of `files` that may have changed.

        Raises:
            EngineMismatch: a file is missing, or is not the one that was built.
        """
        check_files(self._folder, files, command=self._command, digest=None)
        for name, digest in files.items():
            now = self._stamp(name)
            if now != self._stamps.get(name):
                check_files(self._folder, {name: digest}, command=self._command)
                self._stamps[name] = now

    def _stamp(self, name: str) -> tuple[int, int]:
        found = (self._folder / name).stat()
        return found.st_ino, found.st_mtime_ns


class FileChecks:
    """Compares files in threads while they are opened: hashing SDXL's engines takes as long as opening them.

    Leaving the `with` block waits for all comparisons and raises the first failure.
    """

    def __init__(self, folder: Path, *, command: str, hashes: bool = True) -> None:
        """Without `hashes` only sizes are compared."""
        self._folder = folder
        self._command = command
        self._hashes = hashes
        self._pool = ThreadPoolExecutor(min(_WORKERS, len(os.sched_getaffinity(0))))
        self._running: list[Future[None]] = []

    def __enter__(self) -> Self:
        return self

    def start(self, files: Mapping[str, FileDigest]) -> None:
        """Begin to check `files`. Sizes are compared first, so that a truncated file is never opened.

        Raises:
            EngineMismatch: a file is missing or has another size.
        """
        check_files(self._folder, files, command=self._command, digest=None)
        for name, digest in files.items() if self._hashes else ():
            check = self._pool.submit(check_files, self._folder, {name: digest}, command=self._command)
            self._running.append(check)

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Raises EngineMismatch for a changed file, also where opening it failed: then that is the reason."""
        self._pool.shutdown(wait=True, cancel_futures=False)
        for check in self._running:
            if (failure := check.exception()) is not None:
                raise failure from error
