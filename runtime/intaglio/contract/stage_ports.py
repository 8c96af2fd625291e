"""The tensors that stages hand to each other, and those of an answer."""

from __future__ import annotations

from typing import Final, get_args

from intaglio.contract.architecture import LARGEST_CLIP_SKIP
from intaglio.contract.ports import Port
from intaglio.contract.request_ports import CLIP_SKIP_RANGE
from intaglio.contract.request_values import LARGEST_GUIDANCE, LONGEST_SECONDS, OutputFormat, Priority
from intaglio.contract.sdxl import HISTORY, SOLVER_ROWS

__all__ = ["CONDITIONING", "IMAGE", "METADATA", "OUTPUT_FORMAT", "PIXELS", "QUEUEING", "TIMINGS"]

METADATA: Final = Port(
    name="metadata", datatype="TYPE_STRING", doc="JSON: every request parameter with defaults filled in"
)
TIMINGS: Final = Port(name="timings", datatype="TYPE_STRING", doc="JSON: seconds by stage")
OUTPUT_FORMAT: Final = Port(
    name="output_format",
    datatype="TYPE_STRING",
    choices=get_args(OutputFormat),
    doc="encoding of the images returned",
)
IMAGE: Final = Port(
    name="image",
    datatype="TYPE_STRING",
    dims=(-1,),
    doc="encoded images with their metadata inside; base64 text of them with response_format b64",
)
PIXELS: Final = Port(
    name="pixels", datatype="TYPE_UINT8", dims=(-1, -1, -1, 3), doc="decoded images, [B, H, W, RGB]"
)
CONDITIONING: Final = (
    Port(
        name="token_ids",
        datatype="TYPE_INT64",
        dims=(2, -1, -1, -1),
        doc="tokens of the prompts for both text encoders, [encoder, R, k, 77]",
    ),
    Port(
        name="token_weights",
        datatype="TYPE_FP32",
        dims=(2, -1, -1, -1),
        doc="factor on the hidden states of each token, [encoder, R, k, 77]",
    ),
    Port(
        name="clip_skip",
        datatype="TYPE_INT32",
        optional=True,
        default=0,
        minimum=0,
        maximum=LARGEST_CLIP_SKIP,
        deployment_range=CLIP_SKIP_RANGE,
        doc="layers of the text encoders to skip for the positive prompt, beyond the last one",
    ),
    Port(
        name="zero_negative",
        datatype="TYPE_BOOL",
        doc="whether the negative prompt was absent, so that its embeddings are zeros",
    ),
    Port(
        name="time_ids",
        datatype="TYPE_FP32",
        dims=(-1, -1),
        doc="SDXL's size conditioning, [R, 6]: original size, crop, target size, each (height, width)",
    ),
    Port(
        name="guidance_scale",
        datatype="TYPE_FP32",
        minimum=0,
        maximum=LARGEST_GUIDANCE,
        doc="classifier-free guidance",
    ),
    Port(
        name="guidance_rescale",
        datatype="TYPE_FP32",
        optional=True,
        default=0.0,
        minimum=0,
        maximum=1,
        doc="how far the deviation of what guidance makes is brought back to that without guidance",
    ),
    Port(
        name="guidance_window",
        datatype="TYPE_FP32",
        dims=(2,),
        optional=True,
        absent="0, 1",
        doc="[begin, end] shares of the steps between which guidance is on",
    ),
    Port(name="timesteps", datatype="TYPE_FP32", dims=(-1,), doc="timestep of each call, [n]"),
    Port(
        name="input_scale",
        datatype="TYPE_FP32",
        dims=(-1,),
        doc="factor on the latents that the UNet gets in each call, [n]",
    ),
    Port(
        name="coefficients",
        datatype="TYPE_FP32",
        dims=(-1, HISTORY, SOLVER_ROWS),
        doc="the solver as a table, [n, K, K+2]",
    ),
    Port(
        name="noise",
        datatype="TYPE_FP32",
        dims=(-1, -1, -1, -1, -1),
        doc="noise that the solver adds, [m, B, 4, h, w]; one row of zeros when it adds none",
    ),
    Port(
        name="state",
        datatype="TYPE_FP32",
        dims=(HISTORY, -1, -1, -1, -1),
        doc="latents and the solver's history, [K, B, 4, h, w]; row 0 is the latents",
    ),
    Port(
        name="controls",
        datatype="TYPE_STRING",
        doc='JSON list of {"control": id, "weight", "begin", "end", "every": 1}, one for each control map',
    ),
    Port(
        name="control_maps",
        datatype="TYPE_UINT8",
        dims=(-1, -1, -1, 3),
        doc="maps of the controls, [c, H, W, RGB]; one black pixel when there are none",
    ),
    Port(
        name="loras",
        datatype="TYPE_STRING",
        doc='JSON list of {"id", "sha256", "weight"}, sorted by id: the LoRAs to apply',
    ),
)
"""What `diffuse` needs to know of a picture; `preprocess` makes all of it."""
QUEUEING: Final = (
    Port(
        name="priority",
        datatype="TYPE_STRING",
        optional=True,
        default="interactive",
        choices=get_args(Priority),
        doc="level of the request in the queue",
    ),
    Port(
        name="queue_timeout",
        datatype="TYPE_FP32",
        optional=True,
        default=0.0,
        minimum=0,
        maximum=LONGEST_SECONDS,
        doc="seconds that the request may wait for its turn; 0 is no limit",
    ),
)
