"""`build/<name>/presets.json`: the presets that requests to this build may name.

`intaglio build` writes the file atomically, and a running server looks at it before each request, as it does
with the registry of LoRAs: a new style needs no restart and no reload. Only what was checked is published. So
a mistake in the user's file refuses the build, and the server keeps what it has.
"""

from __future__ import annotations

import json
import logging
from pathlib import Path
from typing import Final

from pydantic import ValidationError

from intaglio.builds.manifest import write_json
from intaglio.contract.presets import Presets
from intaglio.errors import BuildError, ConfigError
from intaglio.stored_versions import SCHEMA_VERSION, version_problem
from intaglio.validation_errors import problems_text
from intaglio.whole_files import storage_problem

__all__ = ["PRESETS_NAME", "PublishedPresets", "publish_presets"]

PRESETS_NAME: Final = "presets.json"
_VERSION: Final = 1
log = logging.getLogger(__name__)


def publish_presets(folder: Path, presets: Presets) -> None:
    """Write `presets` into the build in `folder`, unless the file says the same.

    Raises:
        BuildError: it cannot be written; what was published before is still served.
    """
    path = folder / PRESETS_NAME
    try:
        if PublishedPresets(folder).current() == presets and path.is_file():
            return
    except ConfigError:
        pass  # a damaged file is replaced
    try:
        said = presets.model_dump(mode="json", exclude_none=True)
        write_json(path, {SCHEMA_VERSION: _VERSION, **said})
    except OSError as error:
        raise BuildError(f"{path}: {storage_problem(error)}; what was published before is served") from error


def _presets_of(data: bytes) -> Presets:
    """What a file says; ValueError where this version of intaglio cannot read it."""
    if problem := version_problem(data, reads=_VERSION):
        raise ValueError(problem)
    try:
        found = json.loads(data)
    except ValueError:
        found = None
    if not isinstance(found, dict):
        return Presets.model_validate_json(data)
    found.pop(SCHEMA_VERSION, None)
    return Presets.model_validate_json(json.dumps(found))


class PublishedPresets:
    """The presets of one build as they are now."""

    def __init__(self, folder: Path) -> None:
        self._path = folder / PRESETS_NAME
        self._stamp: tuple[int, int, int] | None = None
        self._read: Presets | None = None
        self.problem: str | None = None
        """Why the file cannot be used now; then what was read before is. It tells a client no path of this
        machine, which the log has.
        """

    def current(self) -> Presets:
        """What is published. The file is read again only after it was replaced or could not be read; a build
        without one has none.

        Raises:
            ConfigError: the file is damaged, and nothing was read before.
        """
        try:
            status = self._path.stat()
            stamp = (status.st_ino, status.st_mtime_ns, status.st_size)
            if stamp == self._stamp and self._read is not None:
                return self._read
            data = self._path.read_bytes()
        except FileNotFoundError:
            return Presets() if self._read is None else self._unreadable("it is gone")
        except OSError as error:
            return self._unreadable(error.strerror or "it cannot be read")
        try:
            self._read = _presets_of(data)
        except (ValidationError, ValueError) as error:
            shown = problems_text(error, Presets) if isinstance(error, ValidationError) else str(error)
            kept = self._kept(shown)
            self._stamp = stamp
            return kept
        self._stamp = stamp
        self.problem = None
        return self._read

    def _unreadable(self, reason: str) -> Presets:
        """As `_kept`; the file is read next time, also where it is the same one."""
        self._stamp = None
        return self._kept(reason)

    def _kept(self, reason: str) -> Presets:
        """What was read before, where the file cannot be used; ConfigError where nothing was."""
        again = "intaglio build writes it again"
        if self._read is None:
            raise ConfigError(f"{self._path}: {reason}; {again}")
        problem = f"{PRESETS_NAME}: {reason}; {again}; the presets that were read before are used"
        if problem != self.problem:  # once, and not for each request
            log.warning("%s: %s", self._path.parent, problem)
        self.problem = problem
        return self._read
