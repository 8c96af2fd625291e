"""The folder of a batch.

batch.json        what the specification says, so that no other one goes on in this folder
manifest.jsonl    what was drawn and judged
*.png             the pictures, or `accepted/*.png` and `rejected/*.png`
thumbs/*.webp     small pictures of the contact sheet
sheet.html        the contact sheet
before/           pictures of an earlier specification that the new one has not asked for
"""

from __future__ import annotations

import hashlib
import io
import json
import re
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path, PurePath
from typing import Any, Final

import numpy as np
import PIL.Image
from numpy.typing import NDArray

from intaglio.errors import ConfigError, single_line
from intaglio.folder_lock import locked
from intaglio.stored_versions import SCHEMA_VERSION, version_problem
from intaglio.whole_files import storage_problem, write_whole
from intaglio_client.batch.combining import Item, Items
from intaglio_client.batch.manifest import MANIFEST_NAME, Manifest, Record
from intaglio_client.batch.spec import NAME_FIELD, BatchSpec

__all__ = ["SHEET_NAME", "BatchFolder", "identity_of"]

SHEET_NAME: Final = "sheet.html"
_STATE: Final = "batch.json"
_VERSION: Final = 1
"""Of batch.json, and of the manifest beside it."""
_LOCK: Final = ".lock"
_BEFORE: Final = "before"
_THUMBS: Final = "thumbs"
_THUMB_SIDE: Final = 224
"""Longest side in pixels."""
_INDEX_DIGITS: Final = 6
_LONGEST_PART: Final = 40
"""Characters of an input in a file's name."""
_MOST_SHOWN: Final = 4
_FREE: Final = {"url", "in_flight", "same_build"}
"""Keys that change neither a picture nor a verdict."""


def identity_of(spec: BatchSpec, items: Items) -> dict[str, Any]:
    """What pictures, verdicts and names depend on. Files count by their bytes.

    Raises:
        ConfigError: a file of a filter cannot be read.
    """
    said = spec.model_dump(mode="python", exclude=_FREE)
    said["output"].pop("folder")
    # A field of a subclass is not dumped through the field of its parent.
    said["filters"] = [one.model_dump(mode="python") for one in spec.filters]
    paths = {f"{one.name}/{path.name}": path for one in spec.filters for path in one.files}
    if spec.rows is not None:
        paths[f"rows/{spec.rows.name}"] = spec.rows
    digests = {name: _digest_of(path) for name, path in paths.items()}
    digests |= {f"controls/{path.as_posix()}": digest for path, digest in items.files.digests.items()}
    found: dict[str, Any] = json.loads(json.dumps({**said, "files": digests}, default=_jsonable))
    return found


def _digest_of(path: Path) -> str:
    try:
        return hashlib.sha256(path.read_bytes()).hexdigest()
    except OSError as error:
        raise ConfigError(f"{path}: {error.strerror}") from error


def _jsonable(value: Any) -> Any:
    if isinstance(value, PurePath):
        return value.name  # a batch may move with its files
    raise TypeError(f"{type(value).__name__} cannot be written as JSON")


class BatchFolder:
    """The folder, held by this process."""

    def __init__(self, path: Path, spec: BatchSpec) -> None:
        self.path = path
        self.sheet = path / SHEET_NAME
        self.manifest = Manifest(path / MANIFEST_NAME)
        self._spec = spec
        self._spares: dict[str, Record] = {}

    @classmethod
    @contextmanager
    def opened(cls, path: Path, spec: BatchSpec) -> Iterator[BatchFolder]:
        """The folder for one run, which is made where it is missing.

        Raises:
            Unavailable: another run works in it.
            ConfigError: it cannot be written.
        """
        with storage(path):
            path.mkdir(parents=True, exist_ok=True)
            (path / _LOCK).touch()
        folder = cls(path, spec)
        with locked(path / _LOCK, work="intaglio batch"), folder.manifest:
            yield folder

    def begin(self, items: Items, *, new_spec: bool = False) -> list[Record]:
        """What earlier runs of the same batch judged.

        With `new_spec` the folder may hold another batch. Its pictures are put aside, and those of them that
        the new one asks for, too, are judged again instead of drawn again.

        Raises:
            ConfigError: the folder holds another batch; it says what differs.
        """
        before, now = self._state(), identity_of(self._spec, items)
        records = self.manifest.read()
        # Where nothing is kept yet, the specification may still change.
        changes = _differences(before, now) if before is not None and records else []
        changes = changes or _foreign_records(records, items)
        with storage(self.path):
            if changes and new_spec:
                self._put_aside(records)
                records = []
            elif changes:
                raise ConfigError(
                    f"{self.path} holds another batch: {_listed(changes)}; allowed: the same "
                    "specification, another folder, or --new-spec to keep what both ask for"
                )
            if before != now:
                state = {SCHEMA_VERSION: _VERSION, **now}
                write_whole(self.path / _STATE, json.dumps(state, indent=1).encode())
        self._spares = self._read_spares()
        return records

    def _state(self) -> Any:
        path = self.path / _STATE
        try:
            found: Any = json.loads(path.read_bytes())
        except FileNotFoundError:
            return None
        except ValueError as error:
            raise ConfigError(f"{path}: no JSON; the file is damaged") from error
        if problem := version_problem(found, reads=_VERSION):
            raise ConfigError(f"{path}: {problem}; end this batch with that one, or take another folder")
        if isinstance(found, dict):
            found.pop(SCHEMA_VERSION, None)
        return found

    def _put_aside(self, records: Sequence[Record]) -> None:
        """Move every picture to `before`, named by its item. A stop in between loses none: `before` has the
        records first.
        """
        aside = self.path / _BEFORE
        manifest = Manifest(aside / MANIFEST_NAME)
        manifest.keep([*manifest.read(), *records])
        for record in records:
            path = self.path / record["file"]
            if path.exists():
                path.replace(aside / f"{record['item']}{path.suffix}")
        self.manifest.keep([])

    def _read_spares(self) -> dict[str, Record]:
        manifest = Manifest(self.path / _BEFORE / MANIFEST_NAME)
        return {record["item"]: record for record in manifest.read()}

    def spare(self, item: Item) -> tuple[Record, bytes] | None:
        """A picture of `item` that was drawn for an earlier specification. One that is damaged is none."""
        record = self._spares.get(item.digest)
        if record is None:
            return None
        try:
            data = self._spare_path(item).read_bytes()
        except FileNotFoundError:
            data = b""
        if hashlib.sha256(data).hexdigest() == record["sha256"]:
            return record, data
        del self._spares[item.digest]
        return None

    @property
    def has_spares(self) -> bool:
        """Whether `spare` may have any."""
        return bool(self._spares)

    def has_spare(self, item: Item) -> bool:
        """Whether `spare` probably has a picture of `item`; it is not read."""
        return item.digest in self._spares and self._spare_path(item).is_file()

    def _spare_path(self, item: Item) -> Path:
        return self.path / _BEFORE / f"{item.digest}{self._suffix}"

    def drop_spare(self, item: Item) -> None:
        """Remove the spare of `item`, which has its place now."""
        if self._spares.pop(item.digest, None) is not None:
            self._spare_path(item).unlink(missing_ok=True)

    def is_whole(self, record: Record) -> bool:
        """Whether the picture of a record lies there, as large as it was."""
        path = self.path / str(record["file"])
        return path.is_file() and path.stat().st_size == int(record["bytes"])

    def file_of(self, item: Item, *, accepted: bool) -> PurePath:
        """Where the picture of `item` goes, relative to the folder."""
        values = {**item.inputs, "index": f"{item.index:0{_INDEX_DIGITS}d}"}

        def part(found: re.Match[str]) -> str:
            name = found.group(1)
            return str(values[name]) if name == "index" else _file_name_part(values.get(name))

        name = NAME_FIELD.sub(part, self._spec.output.names) + self._suffix
        if not self._spec.output.apart:
            return PurePath(name)
        return PurePath("accepted" if accepted else "rejected", name)

    @property
    def _suffix(self) -> str:
        return "." + self._spec.output.format

    def write(self, record: Record, data: bytes, pixels: NDArray[np.uint8]) -> None:
        """Keep a picture and then its line.

        Raises:
            ConfigError: the folder cannot be written; the picture counts as not drawn.
        """
        with storage(self.path):
            write_whole(self.path / record["file"], data)
            self.write_thumb(record, pixels)
            self.manifest.append(record)

    def restore(self, record: Record, data: bytes) -> None:
        """Write the picture of a record that was lost; ConfigError where it is another one, or as above."""
        if hashlib.sha256(data).hexdigest() != record["sha256"]:
            raise ConfigError(
                f"{self.path / record['file']} was lost, and the servers draw another picture now; put the "
                "file back, or begin in another folder"
            )
        with storage(self.path):
            write_whole(self.path / record["file"], data)

    def thumb_of(self, record: Record) -> PurePath:
        """The small picture of a record, relative to the folder."""
        return PurePath(_THUMBS, f"{record['index']:0{_INDEX_DIGITS}d}.webp")

    def write_thumb(self, record: Record, pixels: NDArray[np.uint8]) -> None:
        """Write the small picture. It may be lost: the contact sheet makes it again."""
        small = PIL.Image.fromarray(pixels)
        small.thumbnail((_THUMB_SIDE, _THUMB_SIDE), reducing_gap=2.0)
        encoded = io.BytesIO()
        small.save(encoded, "WEBP", quality=75, method=0)
        path = self.path / self.thumb_of(record)
        path.parent.mkdir(exist_ok=True)
        path.write_bytes(encoded.getvalue())


@contextmanager
def storage(path: Path) -> Iterator[None]:
    """Turn what the system says of a folder that cannot be written into a ConfigError."""
    try:
        yield
    except OSError as error:
        named = error.filename or path
        raise ConfigError(
            f"{named}: {storage_problem(error)}; what was kept until then stays, so the same command goes on"
        ) from error


def _file_name_part(value: Any) -> str:
    """`value` as lower-case letters, digits and hyphens."""
    text = value if isinstance(value, str) else json.dumps(value, default=str)
    return re.sub(r"[^a-z0-9.]+", "-", text.lower()).strip("-.")[:_LONGEST_PART].strip("-.") or "none"


def _differences(before: Any, now: Mapping[str, Any]) -> list[str]:
    """`limits.accepted was 20 and is 30`, for each key that differs."""
    old, new = dict(_flat(before)), dict(_flat(now))
    found = []
    for key in dict.fromkeys([*old, *new]):
        if old.get(key) != new.get(key):
            was, is_ = (single_line(json.dumps(side.get(key)), limit=60) for side in (old, new))
            found.append(f"{key} was {was} and is {is_}")
    return found


def _flat(value: Any, key: str = "") -> Iterator[tuple[str, Any]]:
    if isinstance(value, dict) and value:
        for name, inner in value.items():
            yield from _flat(inner, f"{key}.{name}" if key else name)
    elif isinstance(value, list) and any(isinstance(inner, dict) for inner in value):
        for index, inner in enumerate(value):
            yield from _flat(inner, f"{key}[{index}]")
    else:
        yield key, value


def _foreign_records(records: Sequence[Record], items: Items) -> list[str]:
    """Records of other inputs than the items: another version of intaglio read the same specification."""
    for record in records:
        index = record["index"]
        if index >= len(items) or items[index].digest != record["item"]:
            return [f"picture {index} has other inputs now"]
    return []


def _listed(changes: Sequence[str]) -> str:
    more = len(changes) - _MOST_SHOWN
    return "; ".join(changes[:_MOST_SHOWN]) + (f"; and {more} more" if more > 0 else "")
