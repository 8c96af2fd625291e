"""Pictures and seconds on disk: `SCENE/SETTING.png`, and beside it a JSON file with the seconds.

The JSON file is written last and holds a digest of everything that the picture depends on. A file of another
build, scene or setting therefore does not count, and is replaced.
"""

from __future__ import annotations

import io
import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import PIL.Image

from intaglio.builds.manifest import content_key, write_json
from intaglio.whole_files import write_whole
from intaglio_client.tune.distances import Pixels
from intaglio_client.tune.scenes import Scene
from intaglio_client.tune.settings import Setting

__all__ = ["Kept", "Taken"]


@dataclass(frozen=True, slots=True)
class Taken:
    """How long a picture took."""

    seconds: float
    """Of the request, at the client."""
    baseline: float
    """Of the baseline's picture of the same scene in the same run: what `seconds` is compared with."""


@dataclass(frozen=True)
class Kept:
    """The pictures of one build."""

    folder: Path
    build: str
    """Key of the build that draws."""

    def picture(self, scene: Scene, setting: Setting) -> Path:
        """Where the picture lies."""
        return self.folder / scene.name / f"{setting.file_name}.png"

    def taken(self, scene: Scene, setting: Setting) -> Taken | None:
        """The seconds of a picture that is there and is this one; None where it is not."""
        path = self.picture(scene, setting)
        try:
            data: Any = json.loads(path.with_suffix(".json").read_bytes())
        except (OSError, ValueError):
            return None
        same = isinstance(data, Mapping) and data.get("of") == self._digest(scene, setting)
        if not same or not path.is_file():
            return None
        return Taken(float(data["seconds"]), float(data["baseline"]))

    def keep(self, scene: Scene, setting: Setting, png: bytes, taken: Taken) -> None:
        """Write a picture and its seconds."""
        path = self.picture(scene, setting)
        record = path.with_suffix(".json")
        record.unlink(missing_ok=True)  # it speaks of the picture that is replaced now
        write_whole(path, png)
        digest = self._digest(scene, setting)
        write_json(record, {"of": digest, "seconds": taken.seconds, "baseline": taken.baseline})

    def pixels(self, scene: Scene, setting: Setting) -> Pixels:
        """The picture as [H, W, RGB]."""
        with PIL.Image.open(io.BytesIO(self.picture(scene, setting).read_bytes())) as image:
            return np.asarray(image.convert("RGB"), dtype=np.uint8)

    def _digest(self, scene: Scene, setting: Setting) -> str:
        return content_key({"build": self.build, "scene": scene.identity, "inputs": dict(setting.inputs)})
