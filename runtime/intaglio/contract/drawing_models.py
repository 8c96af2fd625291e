"""The models that draw: `sdxl`, `sdxl_stream` and their three stages."""

from __future__ import annotations

from dataclasses import replace
from typing import Final

from intaglio.contract.model_spec import ModelSpec
from intaglio.contract.ports import Port
from intaglio.contract.request_ports import DEADLINE, REQUEST, SLICE_STEPS
from intaglio.contract.request_values import LARGEST_PREVIEW
from intaglio.contract.sdxl import HISTORY
from intaglio.contract.stage_ports import (
    CONDITIONING,
    IMAGE,
    METADATA,
    OUTPUT_FORMAT,
    PIXELS,
    QUEUEING,
    TIMINGS,
)

__all__ = ["ADMITTING_VERSION", "DIFFUSE", "POSTPROCESS", "PREPROCESS", "SDXL", "SDXL_STREAM"]

SDXL: Final = ModelSpec(
    name="sdxl",
    inputs=REQUEST,
    outputs=(IMAGE, METADATA, TIMINGS),
    public=True,
    doc="from a prompt to encoded images: the model that clients call, over gRPC or HTTP",
)
ADMITTING_VERSION: Final = "1"
"""The version of `sdxl` that draws, whatever build it draws with. A server that stops has another one, which
refuses, so this one's readiness says whether requests are admitted.
"""
SDXL_STREAM: Final = ModelSpec(
    name="sdxl_stream",
    inputs=(
        *REQUEST,
        SLICE_STEPS,
        Port(
            name="preview",
            datatype="TYPE_INT32",
            optional=True,
            default=0,
            minimum=0,
            maximum=LARGEST_PREVIEW,
            example=256,
            doc="longest side in pixels of the previews that follow every slice; 0 is no preview",
        ),
        DEADLINE,
    ),
    outputs=(
        Port(name="event", datatype="TYPE_STRING", doc="JSON: what has happened; every response has one"),
        Port(
            name="preview",
            datatype="TYPE_STRING",
            dims=(-1,),
            doc="JPEG files of what each image looks like so far, with an event of kind preview",
        ),
        IMAGE,
        METADATA,
        TIMINGS,
    ),
    entry="intaglio.triton_models.stream:StreamModel",
    public=True,
    decoupled=True,
    doc="as sdxl, with events while a request waits and is drawn; gRPC streaming cancels it between slices",
)
PREPROCESS: Final = ModelSpec(
    name="preprocess",
    inputs=REQUEST,
    outputs=(*CONDITIONING, *QUEUEING, OUTPUT_FORMAT, METADATA, TIMINGS),
    entry="intaglio.triton_models.stages:PreprocessModel",
    doc="checks the request and makes tokens, noise, the solver's table and control maps",
)
DIFFUSE: Final = ModelSpec(
    name="diffuse",
    inputs=(
        # The first request of a picture brings them; those that ask for its next events have none of them.
        *(replace(port, optional=True) for port in CONDITIONING),
        *QUEUEING,
        Port(
            name="job",
            datatype="TYPE_STRING",
            optional=True,
            absent="the answer is the picture",
            doc="id of a picture that the caller watches: its first request brings the picture's tensors and "
            "each later one none; each is answered with the events since the last",
        ),
        Port(
            name="stop",
            datatype="TYPE_BOOL",
            optional=True,
            default=0,
            doc="whether the picture `job` ends after its current slice",
        ),
        SLICE_STEPS,
        replace(DEADLINE, minimum=0),  # what is left of it on arrival
        Port(
            name="begin",
            datatype="TYPE_INT32",
            optional=True,
            default=0,
            doc="first step of this slice",
        ),
        Port(
            name="end",
            datatype="TYPE_INT32",
            optional=True,
            absent="n",
            doc="the step after the last of this slice",
        ),
        Port(
            name="timings",
            datatype="TYPE_STRING",
            optional=True,
            absent="none",
            doc="JSON: seconds of the stages so far",
        ),
    ),
    outputs=(
        PIXELS,
        Port(
            name="state",
            datatype="TYPE_FP32",
            dims=(HISTORY, -1, -1, -1, -1),
            doc="latents and the solver's history after the slice, [K, B, 4, h, w]",
        ),
        TIMINGS,
        Port(
            name="event",
            datatype="TYPE_STRING",
            dims=(-1,),
            doc="JSON of every event since the last answer to a caller that watches, oldest first",
        ),
        Port(
            name="latents",
            datatype="TYPE_FP32",
            dims=(-1, -1, -1, -1),
            doc="latents after the last slice, at the scale of a picture's, [B, 4, h, w]",
        ),
    ),
    entry="intaglio.triton_models.diffuse:DiffuseModel",
    device="gpu",
    doc="runs the text encoders, in every step ControlNets and UNet, and the VAE if `pixels` is asked for",
)
POSTPROCESS: Final = ModelSpec(
    name="postprocess",
    inputs=(
        PIXELS,
        OUTPUT_FORMAT,
        METADATA,
        Port(
            name="timings",
            datatype="TYPE_STRING",
            optional=True,
            absent="none",
            doc="JSON: seconds of the stages so far",
        ),
    ),
    outputs=(IMAGE, METADATA, TIMINGS),
    entry="intaglio.triton_models.stages:PostprocessModel",
    doc="encodes the images and writes their metadata into them",
)
