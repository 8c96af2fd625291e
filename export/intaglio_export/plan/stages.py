"""Content-keyed stages: done once, kept under their key, redone when something they depend on changed.

A stage's result is a folder `<store>/<stage>/<key>` with `record.json`. It is made beside the store and
renamed into it, so a folder that has a name is whole; whatever breaks a stage (a full disk, Ctrl-C) leaves
nothing but a temporary folder that the next build removes. One build works in a store at a time; a second one
waits.
"""

from __future__ import annotations

import contextlib
import fcntl
import logging
import os
import shutil
import tempfile
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from intaglio.builds.file_checks import FileDigest, file_digest
from intaglio.builds.manifest import (
    RECORD_NAME,
    StageRecord,
    content_key,
    read_record,
    stale_reason,
    write_record,
)
from intaglio.errors import BuildError
from intaglio.whole_files import storage_problem
from intaglio_export.plan.digests import DigestCache

__all__ = ["Stage", "StageOutcome", "StageStore"]

log = logging.getLogger(__name__)

_KEY_LENGTH: Final = 16
_UNFINISHED: Final = ".unfinished"


@dataclass(frozen=True)
class Stage:
    """One step of a build. `inputs` is all that the result depends on; `make` fills a folder and returns
    notes for its record.
    """

    name: str
    inputs: Mapping[str, Any]
    versions: Mapping[str, str]
    make: Callable[[Path], dict[str, Any]]

    @property
    def key(self) -> str:
        """Content key; versions count."""
        return content_key({"stage": self.name, **self.inputs, "versions": dict(self.versions)})


@dataclass(frozen=True, slots=True)
class StageOutcome:
    """What became of a stage, and why."""

    name: str
    done: bool
    reason: str
    seconds: float


class StageStore:
    """The folder of all stages' results, shared by the deployments of one build folder."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._lock = threading.Lock()
        self.digests = DigestCache(folder / "digests.json")

    @contextlib.contextmanager
    def locked(self, *, waiting: Callable[[], None] = lambda: None) -> Iterator[None]:
        """Exclusive use until the block ends; `waiting` is called once if another build has it."""
        try:
            self.folder.mkdir(parents=True, exist_ok=True)
            file = (self.folder / ".lock").open("w")
        except OSError as error:
            raise BuildError(f"{self.folder}: cannot be written: {error.strerror or error}") from error
        with file:
            try:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                waiting()
                fcntl.flock(file, fcntl.LOCK_EX)
            shutil.rmtree(self.folder / _UNFINISHED, ignore_errors=True)
            yield

    def path(self, stage: Stage) -> Path:
        """Where the result of `stage` is or will be."""
        return self.folder / stage.name / stage.key[:_KEY_LENGTH]

    def why(self, stage: Stage) -> str | None:
        """Why `stage` must be done; None when its result is here and untouched."""
        folder = self.path(stage)
        if folder.exists():
            return stale_reason(folder, key=stage.key, inputs=self._recorded(stage)) or self._damage(folder)
        earlier = self._latest(stage)
        return (
            "not built yet"
            if earlier is None
            else stale_reason(earlier, key=stage.key, inputs=self._recorded(stage))
        )

    def _recorded(self, stage: Stage) -> dict[str, Any]:
        return {**stage.inputs, **stage.versions}

    def _damage(self, folder: Path) -> str | None:
        record = read_record(folder)
        for name, expected in record.files.items() if record else ():
            if self.digests.digest_unchecked(folder / name).sha256 != expected.sha256:
                return f"{name} was changed after it was built"
        return None

    def _latest(self, stage: Stage) -> Path | None:
        parent = self.folder / stage.name
        records = [item / RECORD_NAME for item in parent.iterdir()] if parent.is_dir() else []
        found = [record for record in records if record.is_file()]
        return max(found, key=lambda record: record.stat().st_mtime).parent if found else None

    def expected_seconds(self, stage: Stage, *, otherwise: float) -> float:
        """How long `stage` took the last time, whatever its inputs were."""
        earlier = self._latest(stage)
        record = None if earlier is None else read_record(earlier)
        return otherwise if record is None else max(record.seconds, 0.05)

    def run(self, stage: Stage, *, force: bool = False) -> StageOutcome:
        """Make the result of `stage` unless it is here.

        Raises:
            BuildError: the stage failed; nothing is left in the store.
        """
        reason = "forced" if force else self.why(stage)
        if reason is None:
            return StageOutcome(stage.name, False, "unchanged", 0.0)
        started = time.perf_counter()
        target = self.path(stage)
        try:
            (self.folder / _UNFINISHED).mkdir(parents=True, exist_ok=True)
            with tempfile.TemporaryDirectory(dir=self.folder / _UNFINISHED, prefix="stage-") as name:
                work = Path(name) / "result"
                work.mkdir()
                notes = stage.make(work)
                files = self._seal(stage, work, notes=notes, seconds=time.perf_counter() - started)
                target.parent.mkdir(parents=True, exist_ok=True)
                if target.exists():
                    target.rename(Path(name) / "replaced")
                work.rename(target)
        except OSError as error:
            raise BuildError(
                f"{stage.name}: {storage_problem(error)} ({self.folder}); nothing of this stage was kept"
            ) from error
        with self._lock:  # engines are compiled in threads
            for file, digest in files.items():
                self.digests.remember(target / file, digest)
            self.digests.save()
        return StageOutcome(stage.name, True, reason, time.perf_counter() - started)

    def _seal(
        self, stage: Stage, work: Path, *, notes: dict[str, Any], seconds: float
    ) -> dict[str, FileDigest]:
        files = {}
        for path in sorted(work.rglob("*")):
            if path.is_file():
                with path.open("rb") as file:
                    os.fsync(file.fileno())
                files[str(path.relative_to(work))] = file_digest(path)
        write_record(
            work,
            StageRecord(
                stage=stage.name,
                key=stage.key,
                inputs=self._recorded(stage),
                versions=dict(stage.versions),
                files=files,
                seconds=round(seconds, 3),
                notes=notes,
            ),
        )
        return files
