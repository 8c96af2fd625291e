"""The request that made an image, read from the metadata inside it."""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from intaglio.errors import InvalidRequest
from intaglio.imaging.images import read_metadata
from intaglio_client.image import Image, model_differences
from intaglio_client.parameters import Parameters, parameters_from_metadata

__all__ = ["Repetition", "metadata_of", "repetition_of"]

_log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Repetition:
    """What to ask for, to get an image again."""

    metadata: Mapping[str, Any]
    prompt: str
    """Without LoRA tags: `loras` of the parameters says what they stood for."""
    parameters: Parameters

    def picked(self, again: Sequence[Image]) -> Image:
        """The image of the batch that it was. What differs between the models that drew both is logged."""
        image = again[int(self.metadata.get("image_index", 0))]
        for difference in model_differences(self.metadata, image.metadata):
            _log.warning("%s; the image may differ", difference)
        return image


def repetition_of(image: bytes | Path, images: Sequence[bytes] = ()) -> Repetition:
    """How to get `image` again; `images` are the control images of its request.

    Raises:
        InvalidRequest: it says nothing of how it was made, or a control image is missing.
    """
    metadata = metadata_of(image)
    prompt, parameters = parameters_from_metadata(metadata, images)
    return Repetition(metadata, prompt, parameters)


def metadata_of(image: bytes | Path) -> dict[str, Any]:
    """What an image says about how it was made; InvalidRequest where it says nothing."""
    allowed = "an image that intaglio made, not re-saved by another program"
    try:
        data = image if isinstance(image, bytes) else image.read_bytes()
        metadata = read_metadata(data)
    except Exception as error:  # Pillow documents no list of what its readers raise for damaged files
        raise InvalidRequest("like", f"cannot be read: {error}", allowed=allowed) from error
    if metadata is None:
        raise InvalidRequest("like", "no intaglio metadata inside", allowed=allowed)
    return metadata
