"""How much a picture is like a character, as a server finds it, and the request for that."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Self

from numpy.typing import NDArray

from intaglio.contract.identity import FacesWanted
from intaglio.contract.models import IDENTITY
from intaglio.contract.port_values import tensor_from_value
from intaglio.contract.ports import string_tensor
from intaglio_client.controls import Encoded, encoded_image

__all__ = ["FaceLikeness", "Identification", "identity_tensors"]


@dataclass(frozen=True, slots=True)
class FaceLikeness:
    """One face of a picture, compared with the character's references: the nearest, and their mean."""

    box: tuple[float, float, float, float]
    """Left, top, right, bottom in pixels."""
    confidence: float
    """That it is a face."""
    cosine: Mapping[str, float]
    """Of `nearest` and `mean`; the higher the more alike."""
    euclidean: Mapping[str, float]
    """Of `nearest` and `mean`; the lower the more alike."""


@dataclass(frozen=True, slots=True)
class Identification:
    """What a picture is found to be."""

    likeness: str
    """match, no match, no face, many faces or face too small."""
    faces: tuple[FaceLikeness, ...]
    """Those that are large enough first, and of these the most alike."""
    character: str
    measure: str
    """What `threshold` is of: cosine or euclidean."""
    reference: str
    """nearest or mean."""
    threshold: float
    references: int
    """How many pictures of the character are enrolled."""

    @classmethod
    def from_outputs(cls, outputs: Mapping[str, NDArray[Any]]) -> Self:
        """The answer of `identity`; ValueError, KeyError, IndexError or TypeError for another one."""
        about = json.loads(outputs["identity"][0])
        scores = json.loads(outputs["scores"][0])
        return cls(
            likeness=bytes(outputs["likeness"][0]).decode(),
            faces=tuple(_face(one) for one in scores),
            character=about["character"],
            measure=about["measure"],
            reference=about["reference"],
            threshold=about["threshold"],
            references=about["references"],
        )

    @property
    def matches(self) -> bool:
        """Whether the picture shows the character."""
        return self.likeness == "match"

    @property
    def score(self) -> float | None:
        """What the threshold is compared with, of the first face; None without one."""
        if not self.faces:
            return None
        face = self.faces[0]
        scores = face.cosine if self.measure == "cosine" else face.euclidean
        return scores[self.reference]


def _face(said: Mapping[str, Any]) -> FaceLikeness:
    left, top, right, bottom = said["box"]
    return FaceLikeness((left, top, right, bottom), said["confidence"], said["cosine"], said["euclidean"])


def identity_tensors(
    image: Encoded, character: str, *, threshold: float | None, faces: FacesWanted
) -> dict[str, NDArray[Any]]:
    """The inputs of `identity`.

    Raises:
        InvalidRequest: a file that cannot be read, or a value that the table does not allow.
    """
    values: dict[str, Any] = {"character": character, "faces": faces}
    if threshold is not None:
        values["threshold"] = threshold
    tensors = {name: tensor_from_value(IDENTITY.input(name), value) for name, value in values.items()}
    return {"image": string_tensor(encoded_image(image, field="image")), **tensors}
