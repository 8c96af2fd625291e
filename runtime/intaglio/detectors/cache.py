"""Detections kept on disk: what was made of a photograph once is not made again.

A detection is two files in a folder, KEY.png and KEY.json, both written atomically, the second last. The key
is made of the photograph's bytes and the detector's version.
"""

from __future__ import annotations

import hashlib
import io
import json
import os
from pathlib import Path
from typing import Final

import numpy as np
from PIL import Image

from intaglio.detectors.detection import Detection
from intaglio.imaging.openpose import KEYPOINTS
from intaglio.imaging.png import png_from_pixels
from intaglio.whole_files import write_whole

__all__ = ["KEPT", "DetectionCache", "detection_key"]

KEPT: Final = 500
"""Detections that are kept; those used longest ago are removed."""


def detection_key(photo: bytes, version: str) -> str:
    """Key of what the detector of `version` makes of the encoded `photo`."""
    return hashlib.sha256(hashlib.sha256(photo).digest() + version.encode()).hexdigest()


class DetectionCache:
    """Detections by key. Several processes may use one folder."""

    def __init__(self, folder: Path, *, kept: int = KEPT) -> None:
        self._folder = folder
        self._kept = kept

    def get(self, key: str) -> Detection | None:
        """The detection of `key`; None where there is none, or where its files are damaged."""
        values, picture = self._files(key)
        try:
            people = json.loads(values.read_bytes())["people"]
            with Image.open(io.BytesIO(picture.read_bytes()), formats=["PNG"]) as image:
                pixels = np.asarray(image.convert("RGB"), dtype=np.uint8)
            if people is not None:
                people = np.array(people, np.float64).reshape(-1, KEYPOINTS, 3)
            os.utime(values)
        except (OSError, ValueError, KeyError, TypeError):
            return None
        return Detection(pixels, people)

    def put(self, key: str, detection: Detection) -> None:
        """Keep `detection`, and remove what was used longest ago.

        Raises:
            OSError: the folder cannot be written.
        """
        values, picture = self._files(key)
        people = None if detection.people is None else detection.people.tolist()
        write_whole(picture, png_from_pixels(detection.map, text={}))
        write_whole(values, json.dumps({"people": people}).encode())
        ages = []
        for path in self._folder.glob("*.json"):
            try:
                ages.append((path.stat().st_mtime_ns, path.stem))
            except FileNotFoundError:  # another process removed it
                continue
        for _, old in sorted(ages, reverse=True)[self._kept :]:
            for path in self._files(old):
                path.unlink(missing_ok=True)

    def _files(self, key: str) -> tuple[Path, Path]:
        return self._folder / f"{key}.json", self._folder / f"{key}.png"
