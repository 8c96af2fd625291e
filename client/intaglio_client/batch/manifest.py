"""`manifest.jsonl`: one line of JSON for each picture that was judged, in the order of the items.

A line is appended when its picture lies whole on the disk, and is flushed to the disk itself. A line that was
cut short by a crash is the last one and is known by that; the file ends before it.
"""

from __future__ import annotations

import contextlib
import json
import os
from collections.abc import Mapping
from pathlib import Path
from types import TracebackType
from typing import Annotated, Any, Final, Self

from pydantic import BaseModel, ConfigDict, NonNegativeInt, StringConstraints, ValidationError

from intaglio.errors import ConfigError
from intaglio.whole_files import write_whole

__all__ = ["KEYS", "MANIFEST_NAME", "Manifest", "Record", "read_manifest"]

MANIFEST_NAME: Final = "manifest.jsonl"
KEYS: Final[Mapping[str, str]] = {
    "index": "number of the picture in the batch, from 0",
    "file": "path of the picture, relative to the manifest",
    "sha256": "digest of the file",
    "bytes": "size of the file",
    "accepted": "whether every filter accepted it",
    "reason": "why it was rejected; empty where it was accepted",
    "scores": "figures of each filter that judged it, by the filter's name",
    "boxes": "what filters found in it, by the filter's name",
    "inputs": "what the specification asks for; paths as written there, with digests of their files",
    "item": "digest of `inputs` and of the format",
    "parameters": "every parameter of the picture, as the server filled it in and as the picture holds it",
    "timings": "seconds of each stage on the server; `request` is what the client measured",
    "server": "host:port of the server that drew it",
    "drawn": "when it was drawn, in UTC",
}
"""What every line has."""
Record = Mapping[str, Any]
_Digest = Annotated[str, StringConstraints(pattern=r"^[0-9a-f]{64}$")]
_File = Annotated[str, StringConstraints(pattern=r"^((accepted|rejected)/)?[A-Za-z0-9][A-Za-z0-9._-]*$")]
"""What `output.names` and `output.apart` make. The folder may be somebody else's, so no path leads out."""


class _Inputs(BaseModel):
    prompt: str


class _Line(BaseModel):
    """What is relied on where a line is read."""

    model_config = ConfigDict(strict=True)

    index: NonNegativeInt
    file: _File
    sha256: str
    bytes: NonNegativeInt
    accepted: bool
    reason: str
    scores: dict[str, dict[str, Any]]
    inputs: _Inputs
    item: _Digest
    parameters: dict[str, Any]
    timings: dict[str, Any]
    server: str
    drawn: str


def read_manifest(path: Path) -> list[Record]:
    """Every whole line of the manifest at `path`, in order.

    Raises:
        ConfigError: there is no such file, or a line is damaged.
    """
    try:
        data = path.read_bytes()
    except FileNotFoundError as error:
        raise ConfigError(f"{path}: no such file; intaglio batch writes one into its folder") from error
    return [_record(line, path, number) for number, line in enumerate(_whole_lines(data)[0], 1)]


def _whole_lines(data: bytes) -> tuple[list[bytes], int]:
    """The lines without what a crash cut short, and the bytes that they fill."""
    end = data.rfind(b"\n") + 1
    lines = data[:end].split(b"\n")[:-1]
    # A power failure may leave zeros in place of the last bytes.
    if lines and not lines[-1].startswith(b"{"):
        end -= len(lines.pop()) + 1
    return lines, end


def _record(line: bytes, path: Path, number: int) -> Record:
    try:
        found: Any = json.loads(line)
    except ValueError as error:
        raise ConfigError(f"{path}, line {number}: no JSON; the file is damaged") from error
    missing = KEYS.keys() - found.keys() if isinstance(found, dict) else KEYS.keys()
    if missing:
        raise ConfigError(f"{path}, line {number}: has no {sorted(missing)[0]}; another program wrote it?")
    record: Record = found
    try:
        _Line.model_validate(found)
    except ValidationError as error:
        wrong = ".".join(map(str, error.errors()[0]["loc"]))
        raise ConfigError(
            f"{path}, line {number}: {wrong} is not what intaglio batch writes; another program wrote it?"
        ) from None
    return record


class Manifest:
    """The file, open for appending."""

    def __init__(self, path: Path) -> None:
        """Opens nothing yet."""
        self.path = path
        self._file: Any = None

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._file is not None:
            self._file.close()
            self._file = None

    def read(self) -> list[Record]:
        """Every whole line; none where there is no file."""
        return read_manifest(self.path) if self.path.exists() else []

    def keep(self, records: list[Record]) -> None:
        """Make `records` the whole content, atomically."""
        write_whole(self.path, b"".join(_line(record) for record in records))

    def append(self, record: Record) -> None:
        """Add one line and wait until the disk has it.

        Raises:
            OSError: the line is not there.
        """
        if self._file is None:
            self._file = self._opened()
        end = self._file.tell()
        try:
            self._file.write(_line(record))
            self._file.flush()
            os.fsync(self._file.fileno())
        except OSError:
            file, self._file = self._file, None
            with contextlib.suppress(OSError):  # it tries to write once more what it could not write
                file.close()
            os.truncate(self.path, end)
            raise

    def _opened(self) -> Any:
        """The file, without what a crash cut short of its last line."""
        data = self.path.read_bytes() if self.path.exists() else b""
        file = self.path.open("ab")
        _, end = _whole_lines(data)
        if end < len(data):
            file.truncate(end)
        file.seek(end)
        return file


def _line(record: Record) -> bytes:
    return json.dumps(record, ensure_ascii=False, allow_nan=False).encode() + b"\n"
