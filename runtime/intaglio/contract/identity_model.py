"""The model `identity`: how much the faces of a picture are like a character."""

from __future__ import annotations

from typing import Final, get_args

from intaglio.contract.identity import LARGEST_THRESHOLD, FacesWanted
from intaglio.contract.model_spec import ModelSpec
from intaglio.contract.ports import Port

__all__ = ["IDENTITY"]

IDENTITY: Final = ModelSpec(
    name="identity",
    inputs=(
        Port(
            name="image",
            datatype="TYPE_STRING",
            absent="none, it is required",
            example="the bytes of a PNG file",
            doc="PNG, JPEG or WEBP file as bytes",
        ),
        Port(
            name="character",
            datatype="TYPE_STRING",
            absent="none, it is required",
            example="mara",
            doc="id of a character that is enrolled on the server",
        ),
        Port(
            name="threshold",
            datatype="TYPE_FP32",
            optional=True,
            minimum=-1,
            maximum=LARGEST_THRESHOLD,
            absent="the character's, or the deployment's identity.threshold",
            example=0.4,
            doc="least cosine, or greatest Euclidean distance, of a face that is the character's",
        ),
        Port(
            name="faces",
            datatype="TYPE_STRING",
            optional=True,
            default="one",
            choices=get_args(FacesWanted),
            example="any",
            doc="one: the picture must show one face; any: one of its faces must be the character's",
        ),
    ),
    outputs=(
        Port(
            name="likeness",
            datatype="TYPE_STRING",
            doc="match, no match, no face, many faces or face too small",
        ),
        Port(
            name="scores",
            datatype="TYPE_STRING",
            doc="JSON list of the faces, those that are large enough first, and of these the most alike: "
            '{"box": [left, top, right, bottom] in pixels, "confidence", "cosine": {"nearest", "mean"}, '
            '"euclidean": {"nearest", "mean"}}',
        ),
        Port(
            name="identity",
            datatype="TYPE_STRING",
            doc='JSON: {"character", "references": how many, "measure", "reference", "threshold", "seconds"}',
        ),
    ),
    entry="intaglio.triton_models.identity:IdentityModel",
    public=True,
    doc="says how much the faces of a picture are like a character; there only where the deployment has "
    "identity",
)
