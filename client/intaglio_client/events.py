"""What a stream tells: the request waits, steps were drawn, a preview, the images."""

from __future__ import annotations

import io
import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

import PIL.Image
from numpy.typing import NDArray

from intaglio_client.errors import ServerError
from intaglio_client.image import Image

__all__ = ["Event", "Preview", "Progress", "Queued", "Result", "event_from_outputs"]

Outputs = Mapping[str, NDArray[Any]]


@dataclass(frozen=True, slots=True, kw_only=True)
class Queued:
    """The request waits."""

    place: int
    """Requests that are served before it; 0: it is the next."""
    waiting: int
    """All requests that wait."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Progress:
    """Steps are done."""

    step: int
    """How many."""
    steps: int
    """How many there will be."""
    seconds: float
    """Since the first of them began."""
    seconds_left: float
    """What the server expects."""
    place: int = 0
    """Requests that are served before the next steps of this one."""
    waiting: int = 0
    """Other requests that wait."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Preview:
    """Small pictures of what is drawn so far, one for each image of the request."""

    step: int
    steps: int
    images: tuple[bytes, ...] = field(repr=False)
    """Encoded, as JPEG or WEBP."""

    def decode(self, index: int = 0) -> PIL.Image.Image:
        """One of them as a Pillow image; ServerError where it cannot be read."""
        try:
            with PIL.Image.open(io.BytesIO(self.images[index])) as image:
                return image.convert("RGB")
        except (OSError, ValueError, SyntaxError, PIL.Image.DecompressionBombError) as error:
            raise ServerError(f"the server sent a preview that cannot be read: {error}") from error


@dataclass(frozen=True, slots=True)
class Result:
    """The images are ready. It is the last event."""

    images: tuple[Image, ...]

    @property
    def image(self) -> Image:
        """The first, which is the only one unless `num_images` says otherwise."""
        return self.images[0]


Event = Queued | Progress | Preview | Result


def event_from_outputs(outputs: Outputs, *, images: Callable[[Outputs], tuple[Image, ...]]) -> Event | None:
    """The event of one response of `sdxl_stream`; None for a kind that this client does not know.

    `images` reads the tensors of the result.

    Raises:
        ServerError: the response is no event.
    """
    try:
        said = json.loads(outputs["event"][0])
        kind = said["kind"]
        if kind == "queued":
            return Queued(place=int(said["place"]), waiting=int(said["waiting"]))
        if kind == "progress":
            return Progress(
                step=int(said["step"]),
                steps=int(said["steps"]),
                seconds=float(said["seconds"]),
                seconds_left=float(said["seconds_left"]),
                place=int(said.get("place", 0)),
                waiting=int(said.get("waiting", 0)),
            )
        if kind == "preview":
            small = tuple(bytes(data) for data in outputs["preview"])
            return Preview(step=int(said["step"]), steps=int(said["steps"]), images=small)
    except (ValueError, KeyError, IndexError, TypeError) as error:
        raise ServerError(f"the server sent an event that cannot be read: {error!r}") from error
    return Result(images(outputs)) if kind == "result" else None
