"""Pictures and seconds on disk: `SCENE/SETTING.png`, and beside it a JSON file with the seconds.

The JSON file is written last and holds a digest of everything that the picture depends on. A file of another
build, scene, setting or version of a LoRA therefore does not count, and is replaced.
"""

from __future__ import annotations

import io
import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

import numpy as np
import PIL.Image

from intaglio.builds.manifest import content_key, write_json
from intaglio.contract.lora_tags import split_lora_tags
from intaglio.loras.sets import ServedLoras
from intaglio.whole_files import write_whole
from intaglio_client.tune.distances import Pixels
from intaglio_client.tune.scenes import Scene
from intaglio_client.tune.settings import Setting

__all__ = ["Kept", "Taken"]

_OF_LORA: Final = {"method", "weight", "trigger_words"}
"""What a request gets from a LoRA's entry beside its file."""


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
    loras: ServedLoras = field(default_factory=ServedLoras)
    """What the build serves now: a LoRA may get another version while the build stays."""

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
        parts = {"build": self.build, "scene": scene.identity, "inputs": dict(setting.inputs)}
        if versions := self._versions(scene, setting):
            parts["versions"] = versions
        return content_key(parts)

    def _versions(self, scene: Scene, setting: Setting) -> dict[str, Any]:
        """What the picture depends on of the LoRAs that it names, also by their presets."""
        names = [lora.id for lora in scene.loras]
        names += [entry["id"] for entry in setting.inputs.get("loras", ())]
        names += [tag.id for tag in split_lora_tags(scene.prompt).tags]
        found: dict[str, Any] = {}
        for name in names:
            members = self.loras.presets.get(name)
            if members is not None:
                found[name] = dict(members)
            for lora in members or (name,):
                if lora in self.loras.loras:
                    entry = self.loras.loras[lora]
                    kept = {"sha256": entry.sha256, **entry.model_dump(mode="json", include=_OF_LORA)}
                    found[lora] = kept
        return found
