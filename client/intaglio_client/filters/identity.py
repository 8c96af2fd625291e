"""Whether a picture shows the face of an enrolled character, as the server's model `identity` finds."""

from __future__ import annotations

import io
import time
from typing import Any, Final

import numpy as np
import PIL.Image
from numpy.typing import NDArray

from intaglio.contract.filters import IdentityFilter
from intaglio.errors import Unavailable
from intaglio_client.client import Client
from intaglio_client.connections.retries import is_retried
from intaglio_client.filters.servers import FilterServers
from intaglio_client.filters.verdict import Candidate, Verdict
from intaglio_client.identification import Identification

__all__ = ["Identity"]

_PAUSE_SECONDS: Final = 0.5
"""Between two questions to servers that are lost; the client has its own pauses in each."""
_COMPRESSION: Final = 1
"""Of the PNG that travels: the fastest."""


class Identity:
    """Asks the servers about each picture. Scores are kept, embeddings never leave the server."""

    def __init__(self, spec: IdentityFilter, client: Client, asked: FilterServers) -> None:
        """`client` asks the servers of `asked`."""
        self.name = spec.name
        self._spec = spec
        self._client = client
        self._asked = asked

    def __call__(self, candidate: Candidate) -> Verdict:
        found = self._identified(_png(candidate.pixels))
        return Verdict(found.matches, _reason(found), _scores(found))

    def _identified(self, data: bytes) -> Identification:
        """The answer for an encoded picture, from whichever server is there, or comes back in time."""
        spec = self._spec
        until = time.monotonic() + self._asked.patience
        while True:
            try:
                return self._client.identify(data, spec.character, threshold=spec.threshold, faces=spec.faces)
            except Unavailable as error:
                comes_back = is_retried(error, is_repeatable=True) or not self._client.is_ready()
                if not comes_back or self._asked.stopped() or time.monotonic() >= until:
                    raise
                time.sleep(_PAUSE_SECONDS)


def _reason(found: Identification) -> str:
    if found.matches:
        return ""
    if found.likeness == "no match" and found.score is not None:
        side = "below" if found.measure == "cosine" else "above"
        return f"{found.measure} {found.score:.4f} is {side} {found.threshold:g}"
    return found.likeness


def _scores(found: Identification) -> dict[str, Any]:
    """Those of the face that the likeness is of."""
    scores: dict[str, Any] = {"likeness": found.likeness, "faces": len(found.faces)}
    if found.faces:
        face = found.faces[0]
        scores |= {"cosine": face.cosine[found.reference], "euclidean": face.euclidean[found.reference]}
    return scores


def _png(pixels: NDArray[np.uint8]) -> bytes:
    buffer = io.BytesIO()
    PIL.Image.fromarray(pixels).save(buffer, "PNG", compress_level=_COMPRESSION)
    return buffer.getvalue()
