"""The model `annotate`: photograph to control map."""

from __future__ import annotations

from typing import Final, get_args

from intaglio.contract.model_spec import ModelSpec
from intaglio.contract.ports import Port
from intaglio.contract.request_values import Resize, ResponseFormat

__all__ = ["ANNOTATE"]

ANNOTATE: Final = ModelSpec(
    name="annotate",
    inputs=(
        Port(
            name="photo",
            datatype="TYPE_STRING",
            absent="none, it is required",
            example="the bytes of a JPEG file",
            doc="PNG, JPEG or WEBP file as bytes",
        ),
        Port(
            name="detector",
            datatype="TYPE_STRING",
            absent="none, it is required",
            example="pose",
            doc="id of a detector of the deployment, or the type of map that one of them makes; canny is "
            "always there",
        ),
        Port(
            name="width",
            datatype="TYPE_INT32",
            optional=True,
            minimum=8,
            maximum=4096,
            absent="the photograph's, with `height`",
            example=1024,
            doc="width of the map in pixels, with `height`",
        ),
        Port(
            name="height",
            datatype="TYPE_INT32",
            optional=True,
            minimum=8,
            maximum=4096,
            absent="the photograph's, with `width`",
            example=1024,
            doc="height of the map in pixels, with `width`",
        ),
        Port(
            name="resize",
            datatype="TYPE_STRING",
            optional=True,
            default="stretch",
            choices=get_args(Resize),
            example="fit",
            doc="how the map gets another shape than the photograph's: stretch, fit (black borders) or fill "
            "(cut at the centre)",
        ),
        Port(
            name="response_format",
            datatype="TYPE_STRING",
            optional=True,
            default="bytes",
            choices=get_args(ResponseFormat),
            example="b64",
            doc="how `map` travels: b64 is base64 text, for answers in JSON",
        ),
    ),
    outputs=(
        Port(name="map", datatype="TYPE_STRING", doc="the control map, a PNG file as bytes or base64 text"),
        Port(
            name="keypoints",
            datatype="TYPE_STRING",
            doc="OpenPose's JSON document of the people, in pixels of the map; empty text where the detector "
            "looks for no people",
        ),
        Port(
            name="annotation",
            datatype="TYPE_STRING",
            doc='JSON: {"detector": id, "type": of the map, "cached": whether the map was made earlier, '
            '"seconds"}',
        ),
    ),
    entry="intaglio.triton_models.annotate:AnnotateModel",
    public=True,
    doc="turns a photograph into a control map; there only where the deployment has detectors",
)
