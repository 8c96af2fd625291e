"""The one table of the Triton models: config.pbtxt, client checks and the docs' request table derive from it.

    sdxl         ensemble of the three stages: what every client calls
    sdxl_stream  the same stages in slices of steps, with events: for clients that watch and cancel
    preprocess   request  -> token ids, solver table, noise, control maps     (CPU, several instances)
    diffuse      those    -> uint8 pixels                                     (one process a GPU)
    postprocess  pixels   -> encoded images                                   (CPU, several instances)
    annotate     photograph -> control map                                    (CPU; only with detectors)
    identity     picture -> how much its faces are like a character           (CPU; only where configured)

Dims: -1 is any size. `max_batch_size` is 0 everywhere, since a request carries its own number of images.
Axes: R prompts (2 = [negative, positive] with guidance, 1 without), k text chunks, n model calls (steps; Heun
and DPM++ SDE have two calls a step), B images, K = 4 solver rows, c controls, m = n or 1 noise rows.

Triton runs no step of an ensemble that misses a tensor, so a stage gets every tensor in every request:
without controls `control_maps` is one black pixel, without a stochastic solver `noise` is one row of zeros.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Final, Literal, get_args

from intaglio.contract.architecture import LARGEST_CLIP_SKIP
from intaglio.contract.identity import LARGEST_THRESHOLD, FacesWanted
from intaglio.contract.ports import Port
from intaglio.contract.sdxl import HISTORY, SOLVER_ROWS

__all__ = [
    "ADMITTING_VERSION",
    "ANNOTATE",
    "CONDITIONING",
    "DELIVERY",
    "DIFFUSE",
    "ENSEMBLE_STEPS",
    "IDENTITY",
    "LARGEST_CONTROL_EVERY",
    "LARGEST_GUIDANCE",
    "LARGEST_LORA_WEIGHT",
    "LARGEST_PREVIEW",
    "LARGEST_SEED",
    "LONGEST_SECONDS",
    "METADATA_KEY",
    "MODELS",
    "POSTPROCESS",
    "PREPROCESS",
    "SDXL",
    "SDXL_STREAM",
    "SHORTEST_SECONDS",
    "STANDALONE",
    "EnsembleStep",
    "ModelSpec",
    "OutputFormat",
    "PaletteName",
    "Priority",
    "Resize",
    "ResponseFormat",
    "Schedule",
    "Scheduler",
    "model_spec",
]

Scheduler = Literal[
    "euler",
    "euler_a",
    "heun",
    "ddim",
    "dpmpp_2m",
    "dpmpp_2m_karras",
    "dpmpp_2m_sde",
    "dpmpp_sde",
    "unipc",
    "lcm",
    "tcd",
]
Schedule = Literal["leading", "trailing", "linspace", "karras", "exponential", "beta", "ays"]
"""Where the steps lie."""
OutputFormat = Literal["png", "jpeg", "webp"]
Resize = Literal["stretch", "fit", "fill"]
"""How a control's image gets the size of the picture: `stretch` does not keep its shape, `fit` adds black
borders, `fill` cuts at the centre.
"""
PaletteName = Literal["ade20k", "bdd100k", "cityscapes"]
"""Colours of segmentation maps: `intaglio/imaging/palettes.py` has them."""
ResponseFormat = Literal["bytes", "b64"]
"""How an image travels: its bytes, or base64 text, which fits into JSON."""
LARGEST_CONTROL_EVERY: Final = 150
"""No trajectory has more steps, so a larger value would mean the same."""
LARGEST_GUIDANCE: Final = 50.0
LARGEST_LORA_WEIGHT: Final = 4.0
SHORTEST_SECONDS: Final = 0.1
LONGEST_SECONDS: Final = 86400.0
"""A day: the bounds of times that requests name."""
LARGEST_PREVIEW: Final = 512
"""Longest side of a preview in pixels."""
LARGEST_SEED: Final = 2**63 - 1
"""Seeds are INT64; the generator uses the low 32 bits as torch's CPU generator does."""
METADATA_KEY: Final = "intaglio"
"""Key of the PNG text chunk, and namespace prefix in XMP, that holds every request parameter as JSON."""
DELIVERY: Final = ("response_format", "priority", "queue_timeout")
"""Inputs that say how a request waits and how its answer travels, and nothing of the picture.

`preprocess` hands them on in its metadata; `postprocess` takes them out, so no picture has them.
"""
Priority = Literal["interactive", "batch"]
"""Levels of requests, the first to be served first."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ModelSpec:
    """One Triton model."""

    name: str
    inputs: tuple[Port, ...]
    outputs: tuple[Port, ...]
    entry: str | None = None
    """`module:class` of a Python model; None for the ensemble."""
    public: bool = False
    """Whether clients call it; the others are stages that a public model calls."""
    decoupled: bool = False
    """Whether a request may get several responses."""
    device: Literal["cpu", "gpu"] = "cpu"
    doc: str = ""

    def input(self, name: str) -> Port:
        """The input called `name`; KeyError when there is none."""
        return self._port(self.inputs, name)

    def output(self, name: str) -> Port:
        """The output called `name`; KeyError when there is none."""
        return self._port(self.outputs, name)

    def _port(self, ports: tuple[Port, ...], name: str) -> Port:
        for port in ports:
            if port.name == name:
                return port
        raise KeyError(f"{self.name} has no tensor {name!r}")


@dataclass(frozen=True, slots=True)
class EnsembleStep:
    """One step of `sdxl`; both maps go from the stage's tensor name to the ensemble's."""

    model: str
    input_map: Mapping[str, str] = field(default_factory=dict)
    output_map: Mapping[str, str] = field(default_factory=dict)


_CLIP_SKIP_RANGE: Final = "at least 0, less than the layers of the smaller text encoder (12 in SDXL)"
_REQUEST: Final = (
    # A request needs it, yet Triton must take it as optional: it answers an ensemble's missing input with
    # "unexpected deadlock". preprocess names the input that is missing.
    Port(
        name="prompt",
        datatype="TYPE_STRING",
        optional=True,
        absent="none, it is required",
        example="a person waving on a beach",
        doc="what to draw, in UTF-8; (word:1.3) gives a word more weight, <lora:ID:WEIGHT> applies a LoRA",
    ),
    Port(
        name="negative_prompt",
        datatype="TYPE_STRING",
        optional=True,
        absent="no negative prompt, as None in diffusers (zeros for SDXL); an empty text is encoded instead",
        example="blurry, dark",
        doc="what to avoid, in UTF-8",
    ),
    Port(
        name="seed",
        datatype="TYPE_INT64",
        optional=True,
        minimum=0,
        maximum=LARGEST_SEED,
        absent="the server draws one and reports it",
        example=7,
        doc="start of the noise: the same seed gives the same image",
    ),
    Port(
        name="width",
        datatype="TYPE_INT32",
        optional=True,
        minimum=8,
        maximum=4096,
        deployment_range="with `height` one of the deployment's profiles.sizes",
        absent="that of the first of profiles.sizes",
        example=256,
        doc="width of the image in pixels",
    ),
    Port(
        name="height",
        datatype="TYPE_INT32",
        optional=True,
        minimum=8,
        maximum=4096,
        deployment_range="with `width` one of the deployment's profiles.sizes",
        absent="that of the first of profiles.sizes",
        example=256,
        doc="height of the image in pixels",
    ),
    Port(
        name="steps",
        datatype="TYPE_INT32",
        optional=True,
        quality=True,
        minimum=1,
        maximum=150,
        deployment_range="at least 1, at most the deployment's limits.steps",
        absent="the deployment's defaults.steps",
        example=20,
        doc="solver steps: more take longer and show more detail",
    ),
    Port(
        name="guidance_scale",
        datatype="TYPE_FP32",
        optional=True,
        quality=True,
        minimum=0,
        maximum=LARGEST_GUIDANCE,
        absent="the deployment's defaults.guidance_scale",
        example=5.0,
        doc="how closely the image follows the prompt (classifier-free guidance); "
        "1 and below turn guidance off",
    ),
    Port(
        name="guidance_rescale",
        datatype="TYPE_FP32",
        optional=True,
        quality=True,
        default=0.0,
        minimum=0,
        maximum=1,
        example=0.7,
        doc="how far guidance is kept from raising the contrast; models of v-prediction want 0.7",
    ),
    Port(
        name="guidance_begin",
        datatype="TYPE_FP32",
        optional=True,
        quality=True,
        default=0.0,
        minimum=0,
        maximum=1,
        example=0.1,
        doc="share of the steps before which guidance is off: such a step takes 0.6 of the time "
        "and changes the image",
    ),
    Port(
        name="guidance_end",
        datatype="TYPE_FP32",
        optional=True,
        quality=True,
        default=1.0,
        minimum=0,
        maximum=1,
        example=0.8,
        doc="share of the steps after which guidance is off",
    ),
    Port(
        name="scheduler",
        datatype="TYPE_STRING",
        optional=True,
        quality=True,
        choices=get_args(Scheduler),
        absent="the deployment's defaults.scheduler",
        example="dpmpp_2m_karras",
        doc="the solver",
    ),
    Port(
        name="clip_skip",
        datatype="TYPE_INT32",
        optional=True,
        default=0,
        minimum=0,
        maximum=LARGEST_CLIP_SKIP,
        deployment_range=_CLIP_SKIP_RANGE,
        example=1,
        doc="layers of the text encoders to skip beyond the last one, which SDXL never uses; none is skipped "
        "for the negative prompt, as in diffusers",
    ),
    Port(
        name="schedule",
        datatype="TYPE_STRING",
        optional=True,
        quality=True,
        choices=get_args(Schedule),
        absent="that of the checkpoint's scheduler_config.json, or the solver's own",
        example="karras",
        doc="where the steps lie; ays is Align Your Steps",
    ),
    Port(
        name="timesteps",
        datatype="TYPE_FP32",
        dims=(-1,),
        optional=True,
        quality=True,
        absent="no custom times",
        example=(999, 749, 499, 249),
        doc="whole training times of the steps, latest first, instead of `steps` and `schedule`",
    ),
    Port(
        name="sigmas",
        datatype="TYPE_FP32",
        dims=(-1,),
        optional=True,
        quality=True,
        absent="no custom noise levels",
        example=(14.615, 3.771, 1.342, 0.555, 0),
        doc="noise levels of the steps, highest first, and the level after the last, "
        "instead of `steps` and `schedule`",
    ),
    Port(
        name="sparse_begin",
        datatype="TYPE_FP32",
        optional=True,
        quality=True,
        minimum=0,
        maximum=1,
        absent="0.3 with `sparse_every`",
        example=0.3,
        doc="share of the steps that are all taken before `sparse_every` counts",
    ),
    Port(
        name="sparse_every",
        datatype="TYPE_INT32",
        optional=True,
        quality=True,
        minimum=1,
        maximum=150,
        absent="every step is taken",
        example=2,
        doc="after `sparse_begin` 2 takes every second of the other steps, 3 every third; "
        "not with multistep solvers",
    ),
    Port(
        name="eta",
        datatype="TYPE_FP32",
        optional=True,
        quality=True,
        minimum=0,
        maximum=1,
        absent="0",
        example=0.3,
        doc="new noise in each step: eta of ddim (1 is DDPM), gamma of tcd",
    ),
    Port(
        name="num_images",
        datatype="TYPE_INT32",
        optional=True,
        default=1,
        minimum=1,
        maximum=16,
        deployment_range="at least 1, at most the deployment's limits.images",
        example=2,
        doc="number of images of this request",
    ),
    Port(
        name="output_format",
        datatype="TYPE_STRING",
        optional=True,
        default="png",
        choices=get_args(OutputFormat),
        example="webp",
        doc="encoding of the images returned",
    ),
    Port(
        name="response_format",
        datatype="TYPE_STRING",
        optional=True,
        default="bytes",
        choices=get_args(ResponseFormat),
        example="b64",
        doc="how `image` travels: b64 is base64 text, for answers in JSON",
    ),
    Port(
        name="priority",
        datatype="TYPE_STRING",
        optional=True,
        default="interactive",
        choices=get_args(Priority),
        example="batch",
        doc="interactive requests go before batch requests; docs/operating.md says how often at most",
    ),
    Port(
        name="queue_timeout",
        datatype="TYPE_FP32",
        optional=True,
        minimum=SHORTEST_SECONDS,
        maximum=LONGEST_SECONDS,
        absent="the request waits as long as it must",
        example=30.0,
        doc="seconds that the request may wait for its turn before it is refused",
    ),
    Port(
        name="images",
        datatype="TYPE_STRING",
        dims=(-1,),
        optional=True,
        absent="no image",
        example="the bytes of a PNG file",
        doc="PNG, JPEG or WEBP files as bytes; `controls` name them by index",
    ),
    Port(
        name="controls",
        datatype="TYPE_STRING",
        optional=True,
        absent="no control",
        example='[{"type": "pose", "pose": "waving-01"}]',
        doc='JSON list of {"type", "image": index or "pose": id, "weight": 1, "begin": 0, "end": 1, '
        '"every": that of `control_every`, "preprocess": "none", "auto" or a detector\'s id, '
        '"resize": "stretch", "palette": "ade20k"}',
    ),
    Port(
        name="control_every",
        datatype="TYPE_INT32",
        optional=True,
        quality=True,
        default=1,
        minimum=1,
        maximum=LARGEST_CONTROL_EVERY,
        example=2,
        doc="2 runs the ControlNets in every second step, 3 in every third; the steps between use their "
        "last result; `every` of a control overrides it",
    ),
    Port(
        name="loras",
        datatype="TYPE_STRING",
        optional=True,
        absent="no LoRA, or the set that was fused at build time",
        example='[{"id": "night", "weight": 0.8}]',
        doc='JSON list of {"id", "weight"}; an id is that of a LoRA or of a preset',
    ),
    Port(
        name="trigger_words",
        datatype="TYPE_BOOL",
        optional=True,
        default=1,
        example=0,
        doc="whether trigger words of `loras` that the prompt lacks are added at its end",
    ),
    Port(
        name="preset",
        datatype="TYPE_STRING",
        optional=True,
        absent="the deployment's defaults.preset, if it has one",
        example="draft",
        doc="id of a quality preset: values for inputs that the request leaves out; with `none` neither a "
        "preset nor the method of a LoRA fills anything in",
    ),
    Port(
        name="style",
        datatype="TYPE_STRING",
        optional=True,
        absent="no style",
        example="drawing",
        doc="id of a style: a template for the prompt, and what the negative prompt gets",
    ),
    Port(
        name="negative_preset",
        datatype="TYPE_STRING",
        optional=True,
        absent="none",
        example="by-day",
        doc="id of a text that the negative prompt gets",
    ),
    Port(
        name="scene",
        datatype="TYPE_STRING",
        optional=True,
        absent="no scene",
        example="beach",
        doc="id of a text that the prompt gets",
    ),
)

_METADATA = Port(
    name="metadata", datatype="TYPE_STRING", doc="JSON: every request parameter with defaults filled in"
)
_TIMINGS = Port(name="timings", datatype="TYPE_STRING", doc="JSON: seconds by stage")
_OUTPUT_FORMAT = Port(
    name="output_format",
    datatype="TYPE_STRING",
    choices=get_args(OutputFormat),
    doc="encoding of the images returned",
)
_IMAGE = Port(
    name="image",
    datatype="TYPE_STRING",
    dims=(-1,),
    doc="encoded images with their metadata inside; base64 text of them with response_format b64",
)
_PIXELS = Port(
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
        deployment_range=_CLIP_SKIP_RANGE,
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
_QUEUEING: Final = (
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
_SLICE_STEPS = Port(
    name="slice_steps",
    datatype="TYPE_INT32",
    optional=True,
    minimum=1,
    maximum=150,
    absent="the deployment's execution.slice_steps",
    example=5,
    doc="calls of the UNet between two events; a slice grows until a step that runs its ControlNets follows",
)
_DEADLINE = Port(
    name="deadline",
    datatype="TYPE_FP32",
    optional=True,
    minimum=SHORTEST_SECONDS,
    maximum=LONGEST_SECONDS,
    absent="no deadline",
    example=60.0,
    doc="seconds from the arrival of the request after which it ends without a picture",
)

SDXL: Final = ModelSpec(
    name="sdxl",
    inputs=_REQUEST,
    outputs=(_IMAGE, _METADATA, _TIMINGS),
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
        *_REQUEST,
        _SLICE_STEPS,
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
        _DEADLINE,
    ),
    outputs=(
        Port(name="event", datatype="TYPE_STRING", doc="JSON: what has happened; every response has one"),
        Port(
            name="preview",
            datatype="TYPE_STRING",
            dims=(-1,),
            doc="JPEG files of what each image looks like so far, with an event of kind preview",
        ),
        _IMAGE,
        _METADATA,
        _TIMINGS,
    ),
    entry="intaglio.triton_models.stream:StreamModel",
    public=True,
    decoupled=True,
    doc="as sdxl, with events while a request waits and is drawn; gRPC streaming cancels it between slices",
)
PREPROCESS: Final = ModelSpec(
    name="preprocess",
    inputs=_REQUEST,
    outputs=(*CONDITIONING, *_QUEUEING, _OUTPUT_FORMAT, _METADATA, _TIMINGS),
    entry="intaglio.triton_models.stages:PreprocessModel",
    doc="checks the request and makes tokens, noise, the solver's table and control maps",
)
DIFFUSE: Final = ModelSpec(
    name="diffuse",
    inputs=(
        # The first request of a picture brings them; those that ask for its next events have none of them.
        *(replace(port, optional=True) for port in CONDITIONING),
        *_QUEUEING,
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
        _SLICE_STEPS,
        replace(_DEADLINE, minimum=0),  # what is left of it on arrival
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
        _PIXELS,
        Port(
            name="state",
            datatype="TYPE_FP32",
            dims=(HISTORY, -1, -1, -1, -1),
            doc="latents and the solver's history after the slice, [K, B, 4, h, w]",
        ),
        _TIMINGS,
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
        _PIXELS,
        _OUTPUT_FORMAT,
        _METADATA,
        Port(
            name="timings",
            datatype="TYPE_STRING",
            optional=True,
            absent="none",
            doc="JSON: seconds of the stages so far",
        ),
    ),
    outputs=(_IMAGE, _METADATA, _TIMINGS),
    entry="intaglio.triton_models.stages:PostprocessModel",
    doc="encodes the images and writes their metadata into them",
)
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
MODELS: Final = (SDXL, SDXL_STREAM, PREPROCESS, DIFFUSE, POSTPROCESS, ANNOTATE, IDENTITY)
STANDALONE: Final = (ANNOTATE, IDENTITY)
"""Public models that call no stage. A deployment may lack them."""


def model_spec(name: str) -> ModelSpec:
    """The model called `name`; KeyError when there is none."""
    for spec in MODELS:
        if spec.name == name:
            return spec
    raise KeyError(f"no model {name!r}; models: {', '.join(spec.name for spec in MODELS)}")


def _ensemble_steps() -> tuple[EnsembleStep, ...]:
    """Connects each input of a stage to the latest earlier stage that makes a tensor of that name, or to the
    request.
    """
    latest = {port.name: port.name for port in SDXL.inputs}
    stages = (PREPROCESS, DIFFUSE, POSTPROCESS)
    steps = []
    for index, stage in enumerate(stages):
        inputs = {port.name: latest[port.name] for port in stage.inputs if port.name in latest}
        outputs = _step_outputs(stage, later=stages[index + 1 :])
        latest |= outputs
        steps.append(EnsembleStep(stage.name, inputs, outputs))
    return tuple(steps)


def _step_outputs(stage: ModelSpec, *, later: tuple[ModelSpec, ...]) -> dict[str, str]:
    """The ensemble's name of every output that a later stage or, after the last stage, the client reads."""
    names = [port.name for port in stage.outputs]
    if not later:
        results = {port.name for port in SDXL.outputs}
        return {name: name for name in names if name in results}
    if stage is DIFFUSE:
        names.remove("state")  # for callers that make the image in slices; the ensemble makes it in one
    read = {port.name for model in later for port in model.inputs}
    return {name: f"{stage.name}_{name}" for name in names if name in read}


ENSEMBLE_STEPS: Final = _ensemble_steps()
"""Order and connections of `sdxl`; the names on the right are the ensemble's own."""
