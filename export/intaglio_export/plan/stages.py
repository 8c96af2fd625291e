"""Content-keyed stages: done once, kept under their key, redone when something they depend on changed.

A stage's result is a folder `<store>/<stage>/<key>` with `record.json`. It is made in a temporary folder and
then renamed, so a folder that has a name is whole. If a stage fails (a full disk, Ctrl-C), only its temporary
folder is left, which the next build removes. One build works in a store at a time, and a second one waits.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import shutil
import tempfile
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, Literal

from intaglio.builds.file_checks import FileDigest, file_digest
from intaglio.builds.manifest import content_key
from intaglio.errors import BuildError
from intaglio.whole_files import storage_problem
from intaglio_export.plan.digests import DigestCache
from intaglio_export.plan.records import RECORD_NAME, StageRecord, changed_inputs, read_record, write_record

__all__ = ["STORE", "Notes", "Stage", "StageKind", "StageOutcome", "StageStore"]

StageKind = Literal["fuse", "onnx", "engine", "pristine", "verify"]
Notes = dict[str, Any]
"""Facts for a stage's record that do not identify its result."""
STORE: Final = ".stages"
"""Folder of a StageStore in the folder of all builds."""
_KEY_LENGTH: Final = 16
_UNFINISHED: Final = ".unfinished"


@dataclass(frozen=True)
class Stage:
    """One step of a build, as a value."""

    kind: StageKind
    network: str
    """The network or component that it is about; empty for `fuse`, which is about all."""
    inputs: Mapping[str, Any]
    """Everything that the result depends on, but for `versions`."""
    versions: Mapping[str, str]
    """Versions of the libraries that the result depends on."""

    @property
    def name(self) -> str:
        """`fuse`, `onnx/unet`: for people and for folders."""
        return f"{self.kind}/{self.network}" if self.network else self.kind

    @property
    def key(self) -> str:
        """Content key of the inputs and versions."""
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

    def __init__(self, folder: Path, *, reread: bool = False) -> None:
        """With `reread`, every file is read again, whatever its size and time say."""
        self.folder = folder
        self._lock = threading.Lock()
        self.digests = DigestCache(folder / "digests.json", reread=reread)

    @contextlib.contextmanager
    def locked(self, *, waiting: Callable[[], None] = lambda: None) -> Iterator[None]:
        """Exclusive use of the store within the block; `waiting` is called once if another build has it.

        Raises:
            BuildError: the folder cannot be written.
        """
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
        return self.result_path(stage.name, stage.key)

    def result_path(self, name: str, key: str) -> Path:
        """Where the result of the stage `name` with `key` is or will be."""
        return self.folder / name / key[:_KEY_LENGTH]

    def remove(self, result: Path) -> None:
        """Remove a result. What an interruption leaves of it, the next build removes."""
        unfinished = self.folder / _UNFINISHED
        unfinished.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=unfinished, prefix="removed-") as name:
            result.rename(Path(name) / "result")

    def why(self, stage: Stage) -> str | None:
        """Why `stage` must be done; None when its result is here and untouched."""
        folder = self.path(stage)
        if not folder.exists():
            earlier = self._latest(stage)
            if earlier is None:
                return "not built yet"
            folder = earlier
        record = read_record(folder)
        if record is None:
            return "an earlier build did not finish"
        if record.key != stage.key:
            return changed_inputs(record, _recorded_inputs(stage))
        return self.digests.damage(folder, record.files)

    def _latest(self, stage: Stage) -> Path | None:
        """The newest result of `stage`, whatever its inputs were."""
        records = list((self.folder / stage.name).glob(f"*/{RECORD_NAME}"))
        if not records:
            return None
        return max(records, key=lambda record: record.stat().st_mtime).parent

    def expected_seconds(self, stage: Stage, *, otherwise: float) -> float:
        """How long `stage` took the last time, whatever its inputs were."""
        earlier = self._latest(stage)
        record = None if earlier is None else read_record(earlier)
        return otherwise if record is None else max(record.seconds, 0.05)

    def run(self, stage: Stage, make: Callable[[Path], Notes], *, force: bool = False) -> StageOutcome:
        """Have `make` fill a folder with the result of `stage`, unless the result is here.

        Raises:
            BuildError: the stage failed; nothing of it is left in the store.
        """
        reason = "forced" if force else self.why(stage)
        if reason is None:
            return StageOutcome(stage.name, False, "unchanged", 0.0)
        started = time.perf_counter()
        try:
            files = self._make(stage, make)
        except OSError as error:
            raise BuildError(
                f"{stage.name}: {storage_problem(error)} ({self.folder}); nothing of this stage was kept"
            ) from error
        with self._lock:  # `run_overlapped` and `run_parallel` finish stages in several threads
            for file, digest in files.items():
                self.digests.remember(self.path(stage) / file, digest)
            self.digests.save()
        return StageOutcome(stage.name, True, reason, time.perf_counter() - started)

    def _make(self, stage: Stage, make: Callable[[Path], Notes]) -> dict[str, FileDigest]:
        """The files of the result; they are in their final place."""
        started = time.perf_counter()
        target = self.path(stage)
        (self.folder / _UNFINISHED).mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=self.folder / _UNFINISHED, prefix="stage-") as name:
            work = Path(name) / "result"
            work.mkdir()
            notes = make(work)
            files = _sealed_files(work)
            seconds = round(time.perf_counter() - started, 3)
            write_record(work, _record(stage, files, notes=notes, seconds=seconds))
            target.parent.mkdir(parents=True, exist_ok=True)
            if target.exists():
                target.rename(Path(name) / "replaced")
            work.rename(target)
        return files


def _recorded_inputs(stage: Stage) -> dict[str, Any]:
    return {**stage.inputs, **stage.versions}


def _record(stage: Stage, files: dict[str, FileDigest], *, notes: Notes, seconds: float) -> StageRecord:
    return StageRecord(
        stage=stage.name,
        key=stage.key,
        inputs=_recorded_inputs(stage),
        versions=dict(stage.versions),
        files=files,
        seconds=seconds,
        notes=notes,
    )


def _sealed_files(work: Path) -> dict[str, FileDigest]:
    """Digests of all files in `work`, which are on the disk afterwards."""
    files = {}
    for path in sorted(work.rglob("*")):
        if path.is_file():
            with path.open("rb") as file:
                os.fsync(file.fileno())
            files[str(path.relative_to(work))] = file_digest(path)
    return files
