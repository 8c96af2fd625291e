"""Detections kept on disk: what was made of a photograph once is not made again.

A detection is two files in a folder, KEY.png and KEY.json, both written atomically, the second last. The key
is made of the photograph's bytes and the detector's version. `intaglio control` and the servers of all builds
in one folder share the detections.
"""

from __future__ import annotations

import contextlib
import hashlib
import io
import json
import os
from pathlib import Path
from typing import Final

import numpy as np
from PIL import Image

from intaglio.detectors.detection import Detection
from intaglio.imaging.openpose import people_from_values
from intaglio.imaging.png import png_from_pixels
from intaglio.whole_files import write_whole

__all__ = ["CACHE_FOLDER", "KEPT", "KEPT_BYTES", "DetectionCache", "detection_key"]

CACHE_FOLDER: Final = ".detections"
"""Folder of kept detections, in the folder of all builds."""
KEPT: Final = 500
"""Detections that are kept; those used longest ago are removed."""
KEPT_BYTES: Final = 1 << 30
"""Most bytes of their maps, however many they are."""


def detection_key(photo: bytes, version: str) -> str:
    """Key of what the detector of `version` makes of the encoded `photo`."""
    return hashlib.sha256(hashlib.sha256(photo).digest() + version.encode()).hexdigest()


class DetectionCache:
    """Detections by key. Several processes may use one folder."""

    def __init__(self, folder: Path, *, kept: int = KEPT, kept_bytes: int = KEPT_BYTES) -> None:
        self._folder = folder
        self._kept = kept
        self._kept_bytes = kept_bytes

    def get(self, key: str) -> Detection | None:
        """The detection of `key`; None where there is none, or where its files are damaged."""
        values, picture = self._files(key)
        try:
            kept = json.loads(values.read_bytes())
            people, classes = kept["people"], bool(kept["classes"])
            with Image.open(io.BytesIO(picture.read_bytes()), formats=["PNG"]) as image:
                pixels = np.asarray(image.convert("RGB"), dtype=np.uint8)
            if people is not None:
                people = people_from_values(people)
        except (OSError, ValueError, KeyError, TypeError, SyntaxError):  # Pillow's, for a damaged PNG
            return None
        with contextlib.suppress(OSError):  # a folder that cannot be written still can be read
            os.utime(values)
        return Detection(pixels, people, classes)

    def put(self, key: str, detection: Detection) -> None:
        """Keep `detection`, and remove what was used longest ago.

        Raises:
            OSError: the folder cannot be written.
        """
        values, picture = self._files(key)
        people = None if detection.people is None else detection.people.tolist()
        write_whole(picture, png_from_pixels(detection.map, text={}))
        write_whole(values, json.dumps({"people": people, "classes": detection.classes}).encode())
        self._remove_oldest()

    def _remove_oldest(self) -> None:
        known = []
        for picture in self._folder.glob("*.png"):
            values = picture.with_suffix(".json")
            # Another process may remove them now. One that was killed leaves a picture without values.
            with contextlib.suppress(FileNotFoundError):
                used = (values if values.exists() else picture).stat().st_mtime_ns
                known.append((used, picture.stem, picture.stat().st_size))
        left = self._kept_bytes
        for index, (_, key, size) in enumerate(sorted(known, reverse=True)):
            left -= size
            if index >= self._kept or left < 0:
                for path in self._files(key):
                    path.unlink(missing_ok=True)

    def _files(self, key: str) -> tuple[Path, Path]:
        return self._folder / f"{key}.json", self._folder / f"{key}.png"
