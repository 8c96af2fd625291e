"""A client whose pictures and seconds a test knows."""

from __future__ import annotations

import io
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import PIL.Image

from intaglio.errors import Unavailable
from intaglio_client.image import Image

BUILD = "b" * 64


@dataclass
class FakeClient:
    """Draws flat pictures: the more steps, the nearer to grey 128."""

    url: str = "127.0.0.1:7"
    build: str = BUILD
    fails_after: int | None = None
    """Pictures after which the server is away."""
    asked: list[tuple[str, dict[str, Any]]] = field(default_factory=list)

    def generate(self, prompt: str, **parameters: Any) -> Image:
        if self.fails_after is not None and len(self.asked) >= self.fails_after:
            raise Unavailable("away")
        self.asked.append((prompt, parameters))
        steps = parameters["steps"]
        value = 128 + round(100 / steps)
        buffer = io.BytesIO()
        PIL.Image.fromarray(np.full((32, 32, 3), value, np.uint8)).save(buffer, "PNG")
        metadata = {"model": {"build": self.build}}
        return Image(buffer.getvalue(), metadata, {"request": 0.1 * steps})

    @property
    def steps(self) -> list[tuple[str, int]]:
        """Prompt and steps of every picture, in order."""
        return [(prompt, parameters["steps"]) for prompt, parameters in self.asked]


@dataclass
class Counted:
    """A progress that counts."""

    weight: float = 0.0

    def started(self, work: str) -> None: ...

    def finished(self, weight: float) -> None:
        self.weight += weight
