"""The pose library: OpenPose keypoints by name, one file NAME.json for each pose.

`NAME-mirrored` is every pose's mirror image, unless a file of that name exists. Tags are the words of the
name and those that the file lists under `tags`.
"""

from __future__ import annotations

import json
import re
from collections.abc import Hashable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from intaglio.contract.yaml_files import REGISTRY_ID
from intaglio.errors import ConfigError, InvalidRequest
from intaglio.imaging.openpose import Keypoints, mirrored_pose, read_pose

__all__ = ["MIRRORED", "MOST_BYTES", "NamedPose", "PoseLibrary", "pose_files", "read_pose_json"]

MIRRORED: Final = "-mirrored"
"""What the name of a mirrored pose ends with."""
MOST_BYTES: Final = 2**20
"""Most bytes of a file. A pose of 32 people has about 20 KB."""


@dataclass(frozen=True, slots=True)
class NamedPose:
    """One pose of a library."""

    name: str
    file: Path
    keypoints: Keypoints
    """[people, 18, 3]: x and y as fractions of width and height, confidence."""
    canvas: tuple[float, float]
    """Width and height of the picture that it comes from."""
    tags: tuple[str, ...]


def pose_files(folder: Path) -> list[Path]:
    """The poses in `folder`, one file each. Files whose names are no ids are none."""
    files = sorted(folder.glob("*.json"))
    return [path for path in files if re.match(REGISTRY_ID, path.stem)]


def read_pose_json(path: Path) -> Any:
    """What the JSON file `path` holds.

    Raises:
        OSError: it cannot be read.
        ValueError: it is no JSON, nested too deeply, or larger than `MOST_BYTES`.
    """
    with path.open("rb") as file:
        data = file.read(MOST_BYTES + 1)
    if len(data) > MOST_BYTES:
        raise ValueError(f"larger than {MOST_BYTES} bytes")
    try:
        return json.loads(data.decode("utf-8"))
    except RecursionError:
        raise ValueError("nested too deeply") from None


class PoseLibrary:
    """The poses of one or several folders. Of poses with the same name, that of the first folder counts.

    Files are read when they are asked for, so a new file is found immediately.
    """

    def __init__(self, *folders: Path | None) -> None:
        """A folder that does not exist holds no poses; None stands for no folder."""
        self._folders = [folder for folder in folders if folder is not None]

    def names(self) -> tuple[str, ...]:
        """The names of the files, sorted."""
        return tuple(sorted({path.stem for folder in self._folders for path in pose_files(folder)}))

    def load(self, name: str, *, field: str = "controls") -> Keypoints:
        """Keypoints of pose `name`, [people, 18, 3].

        Raises:
            InvalidRequest: naming `field`: not an id, or not in the library.
            ConfigError: the file is no OpenPose JSON.
        """
        return self.read(name, field=field).keypoints

    def read(self, name: str, *, field: str = "pose") -> NamedPose:
        """Pose `name` and all that its file says of it; errors as in `load`."""
        found = self._find(name)
        if found is None:
            raise InvalidRequest(field, f"pose {name!r} is unknown", allowed=_shown(self.names()))
        path, mirrored = found
        try:
            document = read_pose_json(path)
            keypoints = read_pose(document)
            canvas = (float(document["canvas_width"]), float(document["canvas_height"]))
            tags = _tags(name, document)
        except (OSError, ValueError, TypeError, KeyError) as error:
            raise ConfigError(
                f"pose {name}: {path.name} is not OpenPose JSON with canvas_width, canvas_height and people: "
                f"{error!r}"
            ) from error
        return NamedPose(name, path, mirrored_pose(keypoints) if mirrored else keypoints, canvas, tags)

    def version(self, name: str) -> Hashable:
        """A value that changes when the file of pose `name` is replaced or edited; None without a file."""
        found = self._find(name)
        if found is None:
            return None
        try:
            state = found[0].stat()
        except FileNotFoundError:
            return None
        return (str(found[0]), state.st_mtime_ns, state.st_size)

    def _find(self, name: str) -> tuple[Path, bool] | None:
        """The file of pose `name`, and whether it holds the mirror image of it."""
        if not re.match(REGISTRY_ID, name):
            return None
        for stem, mirrored in ((name, False), (name.removesuffix(MIRRORED), True)):
            for folder in self._folders:
                path = folder / f"{stem}.json"
                if path.is_file():
                    return path, mirrored
        return None


def _tags(name: str, document: Any) -> tuple[str, ...]:
    listed = document.get("tags", [])
    if not isinstance(listed, list) or not all(isinstance(tag, str) for tag in listed):
        raise ValueError("tags must be a list of texts")
    words = [word for word in re.split(r"[-_]", name) if word and not word.isdigit()]
    return tuple(dict.fromkeys([*words, *listed]))


def _shown(names: Sequence[str]) -> str:
    """The first of `names`, for an error message."""
    if not names:
        return "none: this deployment has no pose library"
    shown = ", ".join(names[:5])
    return f"{shown}, ... ({len(names)} poses)" if len(names) > 5 else shown
