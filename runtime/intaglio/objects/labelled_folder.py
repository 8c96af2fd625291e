"""A folder of labelled pictures: what one picture leaves in it, and how that is taken back.

images/NAME.jpg      the picture, as it was; only where it is accepted
labels/NAME.txt      its label, also where nothing is in it; only where it is accepted
annotated/NAME.jpg   the picture with boxes
records/NAME.json    what was found; written last, so a picture without it was not done; before that, only
                     which files are written
objects.jsonl        all records, one a line
data.yaml            the classes, for trainers
"""

from __future__ import annotations

import contextlib
import io
import json
import os
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, Final

from PIL import Image

from intaglio.errors import ConfigError, InvalidRequest
from intaglio.folder_lock import locked
from intaglio.objects.drawing import drawn
from intaglio.objects.found import FoundObject
from intaglio.objects.label_files import data_yaml, label_text
from intaglio.whole_files import write_whole

__all__ = ["LabelledFolder"]

_RECORDS: Final = "records"
_PLACES: Final = ("annotated", "labels", "images")
_DATA: Final = "data.yaml"
_LOCK: Final = ".lock"
_QUALITY: Final = 90
_ORIENTATION: Final = 0x0112
"""EXIF's tag: how a picture has to be turned."""
_UPRIGHT: Final = 1


class LabelledFolder:
    """The folder. Enter `locked` before anything is written."""

    def __init__(self, path: Path, *, link: bool) -> None:
        """With `link`, images/ has symbolic links to the pictures instead of copies."""
        self.path = path
        self.link = link

    @contextlib.contextmanager
    def locked(self) -> Iterator[None]:
        """One run at a time.

        Raises:
            Unavailable: another one is under way.
        """
        self.path.mkdir(parents=True, exist_ok=True)
        with locked(self.path / _LOCK, work="intaglio annotate"):
            yield

    def check(self, pictures: Iterable[Path]) -> None:
        """Refuse a folder whose files would be lost: one of others' labels, or that of `pictures` themselves.

        Raises:
            InvalidRequest: one of `pictures` lies where this folder keeps its own.
            ConfigError: there are pictures or labels that no run wrote.
        """
        places = {(self.path / place).resolve() for place in ("", _RECORDS, *_PLACES)}
        for picture in pictures:
            if not places.isdisjoint((picture.parent.resolve(), picture.resolve().parent)):
                problem = f"{str(self.path)!r} is where {picture} lies, which a label's picture would replace"
                raise InvalidRequest("out", problem, allowed="another folder")
        if (self.path / _LOCK).exists():
            return
        for name in (*_PLACES, _DATA):
            if (self.path / name).exists():
                right = "name a new folder, or one that this command wrote"
                raise ConfigError(f"{self.path / name}: intaglio annotate did not write it; {right}")

    def record(self, stem: str) -> dict[str, Any] | None:
        """What an earlier run says of the picture `stem`; None where it was not done, or files are gone."""
        value = self._read(stem)
        files = value.get("files")
        there = isinstance(files, list) and all((self.path / str(file)).exists() for file in files)
        return value if there else None

    def _read(self, stem: str) -> dict[str, Any]:
        """The file of a record, whatever became of the files that it names; empty where it says nothing."""
        try:
            value = json.loads((self.path / _RECORDS / f"{stem}.json").read_bytes())
        except (OSError, ValueError):
            return {}
        return value if isinstance(value, dict) else {}

    def write(
        self, source: Path, picture: Image.Image, objects: Sequence[FoundObject], about: Mapping[str, Any]
    ) -> dict[str, Any]:
        """Write all that `source` leaves here, and its record, of which `about` is a part; returns that."""
        stem = source.stem
        self.remove(source)
        # What a stop leaves is found by this where the picture is gone before the next run.
        begun = [f"annotated/{stem}.jpg", f"labels/{stem}.txt", f"images/{source.name}"]
        write_whole(self.path / _RECORDS / f"{stem}.json", _json({"files": begun}))
        files = [f"annotated/{stem}.jpg"]
        buffer = io.BytesIO()
        drawn(picture, objects).save(buffer, "JPEG", quality=_QUALITY, subsampling=0)
        write_whole(self.path / files[0], buffer.getvalue())
        if about["accepted"]:
            files += [self._write_image(source, picture), f"labels/{stem}.txt"]
            text = label_text(objects, width=picture.width, height=picture.height)
            write_whole(self.path / files[-1], text.encode())
        record = {
            **about,
            "width": picture.width,
            "height": picture.height,
            "objects": [
                {"class": one.class_name, "id": one.class_id, "confidence": one.confidence, "box": one.box}
                for one in objects
            ],
            "files": files,
        }
        write_whole(self.path / _RECORDS / f"{stem}.json", _json(record))
        return record

    def _write_image(self, source: Path, picture: Image.Image) -> str:
        """The picture in images/. One that has to be turned first is written upright, since not every reader
        of labels turns it.
        """
        with Image.open(source) as image:
            upright = image.getexif().get(_ORIENTATION, _UPRIGHT) == _UPRIGHT
        if not upright:
            file = f"images/{source.stem}.png"
            buffer = io.BytesIO()
            picture.save(buffer, "PNG")
            write_whole(self.path / file, buffer.getvalue())
            return file
        file = f"images/{source.name}"
        target = self.path / file
        if not self.link:
            write_whole(target, source.read_bytes())
            return file
        target.parent.mkdir(exist_ok=True)
        os.symlink(source.resolve(), target)
        return file

    def remove(self, source: Path) -> None:
        """Remove what the picture `source` left here, also in a run that was stopped before its record. The
        record goes first: without it nothing counts.
        """
        self._remove(source.stem, f"images/{source.name}")

    def _remove(self, stem: str, *others: str) -> None:
        said = self._read(stem).get("files")
        (self.path / _RECORDS / f"{stem}.json").unlink(missing_ok=True)
        own = [f"annotated/{stem}.jpg", f"labels/{stem}.txt", f"images/{stem}.png", *others]
        recorded = map(str, said) if isinstance(said, list) else ()
        for file in dict.fromkeys([*recorded, *own]):
            if Path(file).parent.name in _PLACES and len(Path(file).parts) == 2:
                (self.path / file).unlink(missing_ok=True)

    def finish(self, records: Sequence[Mapping[str, Any]], names: Sequence[str]) -> None:
        """Write data.yaml and objects.jsonl of `records`, and remove what pictures left that are gone."""
        stems = {Path(str(record["picture"])).stem for record in records}
        for file in sorted((self.path / _RECORDS).glob("*.json")):
            if file.stem not in stems:
                self._remove(file.stem)
        for place in ("images", "labels"):
            (self.path / place).mkdir(exist_ok=True)
        write_whole(self.path / _DATA, data_yaml(names).encode())
        write_whole(self.path / "objects.jsonl", b"".join(map(_json, records)))


def _json(value: Mapping[str, Any]) -> bytes:
    return (json.dumps(value, ensure_ascii=False) + "\n").encode()
