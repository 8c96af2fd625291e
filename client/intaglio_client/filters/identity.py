"""Whether a picture shows the face of an enrolled character, as the server's model `identity` finds."""

from __future__ import annotations

import io
from typing import Any, Final

import numpy as np
import PIL.Image
from numpy.typing import NDArray

from intaglio.contract.filters import IdentityFilter
from intaglio_client.client import Client
from intaglio_client.filters.verdict import Candidate, Verdict
from intaglio_client.identification import Identification

__all__ = ["Identity"]

_COMPRESSION: Final = 1
"""Of the PNG that travels: the fastest."""


class Identity:
    """Asks the servers about each picture. Scores are kept, embeddings never leave the server."""

    def __init__(self, spec: IdentityFilter, client: Client) -> None:
        self.name = spec.name
        self._spec = spec
        self._client = client

    def __call__(self, candidate: Candidate) -> Verdict:
        spec = self._spec
        found = self._client.identify(
            _png(candidate.pixels), spec.character, threshold=spec.threshold, faces=spec.faces
        )
        return Verdict(found.matches, _reason(found), _scores(found))


def _reason(found: Identification) -> str:
    if found.matches:
        return ""
    if found.likeness == "no match" and found.score is not None:
        side = "below" if found.measure == "cosine" else "above"
        return f"{found.measure} {found.score:.4f} is {side} {found.threshold:g}"
    return found.likeness


def _scores(found: Identification) -> dict[str, Any]:
    """Those of the face that is most alike."""
    scores: dict[str, Any] = {"likeness": found.likeness, "faces": len(found.faces)}
    if found.faces:
        face = found.faces[0]
        scores |= {"cosine": face.cosine[found.reference], "euclidean": face.euclidean[found.reference]}
    return scores


def _png(pixels: NDArray[np.uint8]) -> bytes:
    buffer = io.BytesIO()
    PIL.Image.fromarray(pixels).save(buffer, "PNG", compress_level=_COMPRESSION)
    return buffer.getvalue()
