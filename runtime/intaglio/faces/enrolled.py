"""Enrolled characters: a folder with one file for each, the embeddings of its reference pictures.

Embeddings are biometric data. Folder and files are their owner's alone (0700, 0600), nothing copies them, and
nothing keeps them in memory between two requests. So a character that is forgotten is gone with its file.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import re
import stat
from collections.abc import Iterator
from pathlib import Path
from typing import IO, Annotated, Final, Literal

import numpy as np
from pydantic import Field, ValidationError

from intaglio.contract.identity import Measure, Threshold
from intaglio.contract.yaml_files import REGISTRY_ID, RegistryId, Sha256, Strict
from intaglio.errors import ConfigError, InvalidRequest
from intaglio.faces.found import Embedding, ReadFace, unit
from intaglio.stored_versions import version_problem
from intaglio.whole_files import temporary_files_of, write_whole

__all__ = ["EnrolledCharacter", "EnrolledFolder", "EnrolledReference"]

_FILE_MODE: Final = 0o600
_FOLDER_MODE: Final = 0o700
_LOCK: Final = ".lock"
_LARGEST_FILE: Final = 64 * 1024 * 1024


class EnrolledReference(Strict):
    """One reference picture."""

    name: str
    """The file's name without its folder."""
    sha256: Sha256
    """Of the file."""
    face: float
    """Shorter side of the face in pixels."""
    embedding: Annotated[tuple[float, ...], Field(min_length=1, repr=False)]

    @property
    def vector(self) -> Embedding:
        """The embedding."""
        return unit(np.array(self.embedding))

    @property
    def read_face(self) -> ReadFace:
        """The reference as a face that can be compared; where it was in the picture is not kept."""
        return ReadFace(np.array([0.0, 0.0, self.face, self.face]), 1.0, self.vector)


class EnrolledCharacter(Strict):
    """The file of one character."""

    schema_version: Literal[1] = 1
    name: RegistryId
    key: Sha256
    """What `reader_key` said of the networks; embeddings of others cannot be compared."""
    threshold: Threshold | None = None
    """Instead of the deployment's."""
    measure: Measure | None = None
    """What `threshold` is of."""
    references: Annotated[tuple[EnrolledReference, ...], Field(min_length=1)]

    @property
    def embeddings(self) -> list[Embedding]:
        """Those of the references."""
        return [reference.vector for reference in self.references]


class EnrolledFolder:
    """The folder; it is made when the first character is written."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def names(self) -> list[str]:
        """The characters that are enrolled, sorted."""
        found = self.path.glob("*.json") if self.path.is_dir() else ()
        return sorted(path.stem for path in found if re.match(REGISTRY_ID, path.stem))

    def file(self, name: str) -> Path:
        """The file of the character `name`.

        Raises:
            InvalidRequest: the name is no id.
        """
        if not re.fullmatch(REGISTRY_ID, name):
            allowed = "at most 64 lower-case letters, digits, _ and -; the first is a letter or a digit"
            raise InvalidRequest("character", repr(name), allowed=allowed)
        return self.path / f"{name}.json"

    def read(self, name: str, *, key: str | None = None, measure: Measure | None = None) -> EnrolledCharacter:
        """The character `name`; with `key`, only where its embeddings are of those networks, and with
        `measure`, only where its threshold is of that.

        Raises:
            InvalidRequest: it is not enrolled.
            ConfigError: its file is damaged, open to others, or of other networks or another measure.
        """
        path = self.file(name)
        try:
            with path.open("rb") as file:
                mode = stat.S_IMODE(os.fstat(file.fileno()).st_mode)
                data = file.read(_LARGEST_FILE)
        except FileNotFoundError as error:
            # Names of characters may be secrets too, so they are not listed.
            allowed = "a character of `intaglio characters list`"
            raise InvalidRequest("character", f"{name!r} is not enrolled", allowed=allowed) from error
        except OSError as error:
            raise ConfigError(f"{path}: {error.strerror or error}") from error
        if mode & 0o077:
            raise ConfigError(f"{path}: others may read it (mode {mode:04o}); run: chmod 600 {path}")
        found = _character(path, data)
        if key is not None and found.key != key:
            raise ConfigError(f"{path}: was enrolled with other networks; enroll {name} again with --replace")
        if measure is not None and found.measure not in (None, measure):
            problem = f"its threshold is of {found.measure}, the deployment measures {measure}"
            raise ConfigError(f"{path}: {problem}; enroll {name} again with --replace and --threshold")
        return found

    def write(self, character: EnrolledCharacter) -> Path:
        """Write the file of `character`; call it under `locked`."""
        path = self.file(character.name)
        write_whole(path, character.model_dump_json().encode(), mode=_FILE_MODE)
        return path

    def forget(self, name: str) -> list[Path]:
        """Remove the file of `name` and what a stopped `write` left of it; returns what was removed.

        The folder and its lock go with the last character.
        """
        path = self.file(name)
        removed = []
        with self.locked(make=False):
            for one in (path, *temporary_files_of(path)):
                with contextlib.suppress(FileNotFoundError):
                    one.unlink()
                    removed.append(one)
            if self.path.is_dir() and not [one for one in self.path.iterdir() if one.name != _LOCK]:
                (self.path / _LOCK).unlink(missing_ok=True)
                with contextlib.suppress(OSError):  # another process has begun to enroll
                    self.path.rmdir()
        return removed

    @contextlib.contextmanager
    def locked(self, *, make: bool = True) -> Iterator[None]:
        """One writer at a time. Makes the folder, unless it is told not to.

        Raises:
            ConfigError: the folder is open to others.
        """
        if not make and not self.path.is_dir():
            yield
            return
        # A folder that others may look into must not keep anyone from forgetting.
        with self._acquired(check=make):
            yield

    def _acquired(self, *, check: bool) -> IO[str]:
        """The lock's file, locked. The folder is made where it is missing."""
        while True:
            self._make()
            # `forget` may remove the folder at any moment, also while this process waits for the lock.
            with contextlib.suppress(FileNotFoundError), contextlib.ExitStack() as stack:
                if check:
                    self.check()
                file = stack.enter_context((self.path / _LOCK).open("a"))
                os.fchmod(file.fileno(), _FILE_MODE)
                fcntl.flock(file, fcntl.LOCK_EX)
                if os.path.samestat(os.fstat(file.fileno()), (self.path / _LOCK).stat()):
                    stack.pop_all()
                    return file

    def _make(self) -> None:
        try:
            self.path.mkdir(parents=True, exist_ok=True, mode=_FOLDER_MODE)
        except FileExistsError as error:
            if self.path.exists():
                raise ConfigError(f"{self.path}: is a file; name a folder for the characters") from error

    def check(self) -> None:
        """Raise ConfigError where others may look into the folder."""
        mode = stat.S_IMODE(self.path.stat().st_mode)
        if mode & 0o077:
            raise ConfigError(
                f"{self.path}: others may look into it (mode {mode:04o}); run: chmod 700 {self.path}"
            )


def _character(path: Path, data: bytes) -> EnrolledCharacter:
    try:
        found = EnrolledCharacter.model_validate_json(data)
    except ValidationError as error:
        # The text of pydantic's error would show parts of the embeddings.
        problem = version_problem(data) or f"damaged: {_places(error)}"
        raise ConfigError(f"{path}: {problem}; enroll {path.stem} again") from None
    widths = {len(reference.embedding) for reference in found.references}
    finite = all(np.isfinite(reference.embedding).all() for reference in found.references)
    if len(widths) != 1 or not finite or found.name != path.stem:
        raise ConfigError(f"{path}: damaged; enroll {path.stem} again")
    return found


def _places(error: ValidationError) -> str:
    """Which fields are wrong, without their values."""
    places = dict.fromkeys(str(one["loc"][0]) if one["loc"] else one["type"] for one in error.errors())
    return ", ".join(places)
