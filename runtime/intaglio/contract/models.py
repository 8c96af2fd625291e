"""The one table of the Triton models: config.pbtxt, client checks and the docs' request table derive from it.

Each model is described in a file beside this one; other rooms take all of them from here.

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

from typing import Final

from intaglio.contract.annotate_model import ANNOTATE
from intaglio.contract.drawing_models import (
    ADMITTING_VERSION,
    DIFFUSE,
    POSTPROCESS,
    PREPROCESS,
    SDXL,
    SDXL_STREAM,
)
from intaglio.contract.identity_model import IDENTITY
from intaglio.contract.model_spec import EnsembleStep, ModelSpec
from intaglio.contract.request_values import (
    DELIVERY,
    LARGEST_CONTROL_EVERY,
    LARGEST_GUIDANCE,
    LARGEST_LORA_WEIGHT,
    LARGEST_PREVIEW,
    LARGEST_SEED,
    LONGEST_SECONDS,
    METADATA_KEY,
    SHORTEST_SECONDS,
    OutputFormat,
    PaletteName,
    Priority,
    Resize,
    ResponseFormat,
    Schedule,
    Scheduler,
)
from intaglio.contract.stage_ports import CONDITIONING

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
