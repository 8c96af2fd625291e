"""A control map that a server made of a photograph, and the request for one."""

from __future__ import annotations

import io
import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Self

import PIL.Image
from numpy.typing import NDArray

from intaglio.contract.models import ANNOTATE, Resize
from intaglio.contract.port_values import tensor_from_value
from intaglio.contract.ports import string_tensor
from intaglio_client.controls import Encoded, encoded_image

__all__ = ["Annotation", "annotate_tensors"]


@dataclass(frozen=True, slots=True)
class Annotation:
    """A control map and what the detector says beside it."""

    map: bytes = field(repr=False)
    """A PNG file."""
    keypoints: Mapping[str, Any] | None
    """OpenPose's document of the people, in pixels of the map; None where the detector looks for none."""
    detector: str
    """Its id in the server's deployment."""
    type: str
    """Of the map."""
    cached: bool
    """Whether the map was made earlier."""

    @classmethod
    def from_outputs(cls, outputs: Mapping[str, NDArray[Any]]) -> Self:
        """The answer of `annotate`; ValueError, KeyError or IndexError for another one."""
        about = json.loads(outputs["annotation"][0])
        keypoints = outputs["keypoints"][0]
        return cls(
            map=bytes(outputs["map"][0]),
            keypoints=json.loads(keypoints) if keypoints else None,
            detector=about["detector"],
            type=about["type"],
            cached=about["cached"],
        )

    def decode(self) -> PIL.Image.Image:
        """The map as a Pillow image."""
        with PIL.Image.open(io.BytesIO(self.map)) as image:
            return image.convert("RGB")

    def save(self, path: str | Path) -> Path:
        """Write the map's PNG file."""
        path = Path(path)
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(self.map)
        return path


def annotate_tensors(
    photo: Encoded, detector: str, *, size: tuple[int, int] | None, resize: Resize
) -> dict[str, NDArray[Any]]:
    """The inputs of `annotate`.

    Raises:
        InvalidRequest: a file that cannot be read, or a value that the table does not allow.
    """
    values: dict[str, Any] = {"detector": detector, "resize": resize}
    if size is not None:
        values["width"], values["height"] = size
    tensors = {name: tensor_from_value(ANNOTATE.input(name), value) for name, value in values.items()}
    return {"photo": string_tensor(encoded_image(photo, field="photo")), **tensors}
