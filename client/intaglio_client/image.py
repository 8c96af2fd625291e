"""One generated image: its encoded bytes, and what made it."""

from __future__ import annotations

import io
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

import numpy as np
import PIL.Image
from numpy.typing import NDArray

from intaglio.whole_files import write_whole

__all__ = ["Image", "model_differences"]

_SHOWN_DIGITS: Final = 12


@dataclass(frozen=True, slots=True)
class Image:
    """PNG, JPEG or WEBP bytes with every request parameter inside."""

    data: bytes = field(repr=False)
    metadata: Mapping[str, Any]
    """Request parameters by name, with the server's defaults filled in; also `model` and `image_index`."""
    timings: Mapping[str, float] = field(default_factory=dict)
    """Seconds of each stage, for the whole request; `request` is what the client measured."""
    request_id: str = ""
    """The id that the request had in the server's traces; empty for an image from elsewhere."""

    @property
    def seed(self) -> int:
        """The seed used: the server's choice where none was given."""
        return int(self.metadata["seed"])

    @property
    def pixels(self) -> NDArray[np.uint8]:
        """[H, W, RGB]."""
        return np.asarray(self.decode(), dtype=np.uint8)

    def decode(self) -> PIL.Image.Image:
        """As a Pillow image."""
        with PIL.Image.open(io.BytesIO(self.data)) as image:
            return image.convert("RGB")

    def save(self, path: str | Path) -> Path:
        """Write the bytes as the server sent them, atomically; the suffix of `path` does not convert them.
        A file that exists is overwritten.
        """
        path = Path(path)
        write_whole(path, self.data)
        return path


def model_differences(
    original: Mapping[str, Any], again: Mapping[str, Any], *, same_loras: bool = True
) -> list[str]:
    """What differs between the models that made two images, from the images' metadata.

    A LoRA may get a new version while the build stays, so each LoRA of both images is compared by itself.
    `same_loras` says whether the same LoRAs were asked for; then one that only one image has is a difference.
    """
    before, now = dict(original.get("model") or {}), dict(again.get("model") or {})
    versions_before, versions_now = before.pop("loras", None) or {}, now.pop("loras", None) or {}
    found = []
    if before != now:
        found.append("the server runs another build than the one that made the original")
    one_sided = set(versions_before) ^ set(versions_now)
    for lora in sorted(one_sided) if same_loras else ():
        side = "original" if lora in versions_before else "new image"
        found.append(f"lora {lora} was applied to the {side} only")
    for lora in sorted(set(versions_before) & set(versions_now)):
        old, new = versions_before[lora], versions_now[lora]
        if old != new:
            shown_old, shown_new = old[:_SHOWN_DIGITS], new[:_SHOWN_DIGITS]
            found.append(
                f"lora {lora} had version {shown_old} in the original, the server serves {shown_new}"
            )
    return found
