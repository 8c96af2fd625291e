"""A request as values: what a caller may set, with the defaults filled in."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated, Any, Final

from pydantic import Field

from intaglio import __version__
from intaglio.contract.lora_registry import LoraWeight, ResolvedLora
from intaglio.contract.lora_tags import split_lora_tags
from intaglio.contract.models import LARGEST_CONTROL_EVERY, SDXL, PaletteName, Preprocessor, Resize
from intaglio.contract.yaml_files import RegistryId, Strict
from intaglio.sampling.trajectory import Trajectory

if TYPE_CHECKING:  # the client imports this module, and needs nothing of a build
    from intaglio.builds.manifest import BuildManifest

__all__ = [
    "CONTROL_KEYS",
    "LORA_KEYS",
    "ControlRequest",
    "LoraRequest",
    "Request",
    "ResolvedControl",
    "request_metadata",
]

Share = Annotated[float, Field(ge=0, le=1, allow_inf_nan=False)]
"""Of the steps."""
ControlWeight = Annotated[float, Field(ge=0, le=2, allow_inf_nan=False)]
Every = Annotated[int, Field(ge=1, le=LARGEST_CONTROL_EVERY)]
"""2: a ControlNet runs in every second step of its window."""


class ControlRequest(Strict, strict=True):
    """One entry of `controls`: which control, from which image or pose, how strongly, when."""

    type: RegistryId
    """Id of a ControlNet, or the type that one of them has."""
    image: Annotated[int, Field(ge=0)] | None = None
    """Index into `images`."""
    pose: RegistryId | None = None
    weight: ControlWeight = 1.0
    begin: Share = 0.0
    end: Share = 1.0
    every: Every | None = None
    """None is the request's `control_every`."""
    preprocess: Preprocessor = "none"
    resize: Resize = "stretch"
    """As diffusers does; see `Resize`."""
    palette: PaletteName | None = None
    """The colours that a segmentation map is in; None recognises them."""


class ResolvedControl(Strict, strict=True):
    """What `diffuse` needs to know of a control beside its map, which `preprocess` has made."""

    control: RegistryId
    """Id of a ControlNet."""
    weight: ControlWeight
    begin: Share
    end: Share
    every: Every = 1


class LoraRequest(Strict, strict=True):
    """One entry of `loras`: a LoRA or a preset; without a weight, the registry's."""

    id: RegistryId
    weight: LoraWeight | None = None


CONTROL_KEYS: Final = tuple(ControlRequest.model_fields)
LORA_KEYS: Final = tuple(LoraRequest.model_fields)


@dataclass(frozen=True, slots=True, kw_only=True)
class Request:
    """Everything a caller may set, with the defaults filled in."""

    prompt: str
    """As it was given, in its scene and its style, with its LoRA tags; so is `negative_prompt`."""
    negative_prompt: str | None
    seed: int
    width: int
    height: int
    steps: int
    guidance_scale: float
    guidance_rescale: float
    guidance_begin: float
    guidance_end: float
    scheduler: str
    clip_skip: int
    schedule: str | None
    timesteps: tuple[float, ...] | None
    sigmas: tuple[float, ...] | None
    sparse_begin: float | None
    sparse_every: int | None
    eta: float | None
    num_images: int
    output_format: str
    response_format: str
    priority: str
    queue_timeout: float | None
    """Seconds that it may wait for its turn; None is no limit."""
    images: tuple[bytes, ...]
    image_digests: tuple[str, ...]
    """sha256 of each."""
    controls: tuple[ControlRequest, ...]
    control_every: int
    """Of controls that have no `every` of their own."""
    loras: tuple[ResolvedLora, ...]
    """LoRAs to apply, the members of presets among them, sorted by id; empty where the set is fused."""
    trigger_words: bool
    added_words: tuple[str, ...]
    """Trigger words that the prompt lacks."""
    preset: str | None
    """Id of the quality preset, whose values are among the others."""
    style: str | None
    """Id of the style, which the prompts have already; so are `negative_preset` and `scene`."""
    negative_preset: str | None
    scene: str | None
    warnings: tuple[str, ...]
    """What the request probably does not mean, a sentence each."""

    @property
    def full_prompt(self) -> str:
        """The prompt as it is encoded: without LoRA tags, with the trigger words that it lacks."""
        return ", ".join((split_lora_tags(self.prompt).words, *self.added_words))

    @property
    def full_negative_prompt(self) -> str:
        """The negative prompt as it is encoded; an absent one is empty."""
        return split_lora_tags(self.negative_prompt or "").words

    @property
    def trajectory(self) -> Trajectory:
        """The solver, and where its steps lie.

        Raises:
            InvalidRequest: values that contradict each other.
        """
        names = Trajectory.__dataclass_fields__
        return Trajectory(**{name: getattr(self, name) for name in names})

    @property
    def guidance(self) -> bool:
        """Whether the negative prompt takes part (diffusers: `guidance_scale > 1`)."""
        return self.guidance_scale > 1


def request_metadata(
    request: Request, manifest: BuildManifest, *, lora_hashes: Mapping[str, str]
) -> dict[str, Any]:
    """Every request parameter under its input's name, and what made the image.

    A digest stands for each input image. `lora_hashes` are the LoRAs' hashes of other programs, by id.
    `preprocess` adds its warnings.
    """
    loras = (*manifest.loras, *request.loras)  # a build either fuses LoRAs or swaps them
    parameters = {port.name: getattr(request, port.name) for port in SDXL.inputs}
    return {
        **parameters,
        "images": list(request.image_digests),
        "controls": [control.model_dump(exclude_none=True) for control in request.controls],
        "loras": [{"id": lora.id, "weight": lora.weight} for lora in loras],
        "lora_hashes": dict(lora_hashes),
        "added_words": list(request.added_words),
        "model": _model_metadata(manifest, loras),
        "intaglio": __version__,
    }


def _model_metadata(manifest: BuildManifest, loras: Iterable[ResolvedLora]) -> dict[str, Any]:
    return {
        "base": manifest.base,
        "build": manifest.key,
        "precision": manifest.precision,
        "runtime": manifest.runtime,
        "loras": {lora.id: lora.sha256 for lora in loras},
    }
