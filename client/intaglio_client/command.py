"""`intaglio generate PROMPT`."""

from __future__ import annotations

import contextlib
import logging
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, cast

import typer

from intaglio.command_output import Json, Output, Quiet
from intaglio.contract.presets import QUALITY_INPUTS
from intaglio.contract.schedulers import scheduler_from_name
from intaglio.errors import InvalidRequest
from intaglio.exit_codes import INTERRUPTED
from intaglio_client.address import DEFAULT_URL
from intaglio_client.characters import Character, load_character
from intaglio_client.client import Client, metadata_of
from intaglio_client.controls import POSE
from intaglio_client.generate_options import (
    CharacterName,
    CharactersFile,
    ClipSkip,
    ControlEvery,
    ControlGuidanceEnd,
    ControlGuidanceStart,
    ControlnetConditioningScale,
    Controls,
    Deadline,
    Eta,
    GuidanceBegin,
    GuidanceEnd,
    GuidanceRescale,
    GuidanceScale,
    Height,
    Images,
    Like,
    Loras,
    NegativePreset,
    NegativePrompt,
    NumImages,
    Out,
    Pose,
    Preset,
    Prompt,
    Scene,
    ScheduleName,
    SchedulerName,
    Seed,
    Sigmas,
    SparseBegin,
    SparseEvery,
    Steps,
    Style,
    Timesteps,
    TriggerWords,
    Url,
    Width,
)
from intaglio_client.image import Image, model_differences
from intaglio_client.names import without_values
from intaglio_client.option_texts import (
    control_from_text,
    format_of,
    lora_from_text,
    numbers_from_text,
    one_value,
)
from intaglio_client.parameters import Lora, Parameters, parameters_from_metadata

__all__ = ["app"]

app = typer.Typer(name="generate", add_completion=False, help="Ask a server for images.")

_log = logging.getLogger(__name__)
_CUSTOM: Final = frozenset({"timesteps", "sigmas"})
"""Custom steps, which say their number themselves."""


@dataclass(frozen=True, slots=True)
class _Order:
    """What one call of the command asks for."""

    prompt: str | None
    given: Mapping[str, Any]
    """Parameters by our names, and values for all controls by diffusers' names."""
    like: Path | None
    images: tuple[Path, ...]


@app.command()
def generate(  # noqa: PLR0913  (one option a parameter)
    prompt: Prompt = None,
    *,
    out: Out = Path("out.png"),
    like: Like = None,
    negative_prompt: NegativePrompt = None,
    seed: Seed = None,
    width: Width = None,
    height: Height = None,
    steps: Steps = None,
    guidance_scale: GuidanceScale = None,
    guidance_rescale: GuidanceRescale = None,
    guidance_begin: GuidanceBegin = None,
    guidance_end: GuidanceEnd = None,
    scheduler: SchedulerName = None,
    clip_skip: ClipSkip = None,
    schedule: ScheduleName = None,
    timesteps: Timesteps = None,
    sigmas: Sigmas = None,
    sparse_begin: SparseBegin = None,
    sparse_every: SparseEvery = None,
    eta: Eta = None,
    num_images: NumImages = None,
    pose: Pose = None,
    control: Controls = None,
    control_every: ControlEvery = None,
    controlnet_conditioning_scale: ControlnetConditioningScale = None,
    control_guidance_start: ControlGuidanceStart = None,
    control_guidance_end: ControlGuidanceEnd = None,
    lora: Loras = None,
    character: CharacterName = None,
    characters: CharactersFile = Path("configs/characters.yaml"),
    trigger_words: TriggerWords = None,
    preset: Preset = None,
    style: Style = None,
    negative_preset: NegativePreset = None,
    scene: Scene = None,
    image: Images = None,
    url: Url = DEFAULT_URL,
    deadline: Deadline = 300.0,
    json: Json = False,
    quiet: Quiet = False,
) -> None:
    """Ask a server for images; each image says inside how it was made. With --quiet only their paths are
    printed.
    """
    given = {
        "negative_prompt": negative_prompt,
        "seed": seed,
        "width": width,
        "height": height,
        "steps": one_value("steps", steps),
        "guidance_scale": one_value("guidance_scale", guidance_scale),
        "guidance_rescale": guidance_rescale,
        "guidance_begin": guidance_begin,
        "guidance_end": guidance_end,
        "scheduler": one_value("scheduler", scheduler),
        "clip_skip": clip_skip,
        "schedule": schedule,
        "timesteps": numbers_from_text("timesteps", timesteps) if timesteps else None,
        "sigmas": numbers_from_text("sigmas", sigmas) if sigmas else None,
        "sparse_begin": sparse_begin,
        "sparse_every": sparse_every,
        "eta": eta,
        "num_images": one_value("num_images", num_images),
        "pose": pose,
        "controls": [control_from_text(text) for text in control] if control else None,
        "control_every": control_every,
        "controlnet_conditioning_scale": _for_controls(controlnet_conditioning_scale),
        "control_guidance_start": _for_controls(control_guidance_start),
        "control_guidance_end": _for_controls(control_guidance_end),
        "loras": [lora_from_text(text) for text in lora] if lora else None,
        "trigger_words": trigger_words,
        "preset": preset,
        "style": style,
        "negative_preset": negative_preset,
        "scene": scene,
        "output_format": format_of(out),
    }
    given = {name: value for name, value in given.items() if value is not None}
    if character is not None:
        prompt, given = _in_character(load_character(characters, character), prompt, given)
    printed = Output(json=json, quiet=quiet)
    order = _Order(prompt, given, like, tuple(image or ()))
    with Client(url, deadline=deadline) as client, _waiting(printed, url):
        made = _images(client, order)
    _report(printed, _saved(made, out))


def _for_controls(values: list[float] | None) -> float | list[float] | None:
    """One number holds for all controls."""
    if not values:
        return None
    return values[0] if len(values) == 1 else values


def _in_character(
    character: Character, prompt: str | None, given: dict[str, Any]
) -> tuple[str, dict[str, Any]]:
    """Prompt and parameters of the character; parameters in `given` count more than the character's."""
    if prompt is None:
        allowed = "a prompt with --character: what the character does"
        raise InvalidRequest("prompt", "missing", allowed=allowed)
    own: dict[str, Any] = {"loras": [Lora(lora, weight) for lora, weight in character.loras.items()]}
    if character.negative_prompt is not None:
        own["negative_prompt"] = character.negative_prompt
    loras = [*own["loras"], *given.get("loras", [])]
    return character.prompt_of(prompt), {**own, **given, "loras": loras}


@contextlib.contextmanager
def _waiting(printed: Output, url: str) -> Iterator[None]:
    """Show on a terminal that the command waits; say what becomes of the request when somebody interrupts."""
    console = printed.progress
    shown: contextlib.AbstractContextManager[Any] = contextlib.nullcontext()
    if console.is_terminal and not printed.quiet:
        shown = console.status(f"waiting for {url}")
    try:
        with shown:
            yield
    except KeyboardInterrupt:
        printed.problem("stopped waiting; the server still finishes a request that it has")
        raise typer.Exit(INTERRUPTED) from None


def _images(client: Client, order: _Order) -> tuple[Image, ...]:
    if order.like is not None:
        return _images_like(client, order, order.like)
    if order.images:
        allowed = "beside --like IMAGE; --control type=TYPE,image=FILE for a new image"
        raise InvalidRequest("image", "given without --like", allowed=allowed)
    if order.prompt is None:
        raise InvalidRequest("prompt", "missing", allowed="a prompt, or --like IMAGE")
    return client.generate_batch(order.prompt, **order.given)


def _images_like(client: Client, order: _Order, like: Path) -> tuple[Image, ...]:
    """The image `like` again, changed by the order's prompt and parameters."""
    metadata = metadata_of(like)
    originals = [path.read_bytes() for path in order.images]
    unchanged = {"output_format": metadata.get("output_format")}
    if order.prompt is None and order.given == unchanged:
        return (client.repeat(like, images=originals),)
    before, parameters = parameters_from_metadata(metadata, originals)
    parameters = _without_replaced(parameters, order.given)
    controls = without_values(parameters["controls"] or (), order.given)
    if POSE in order.given:  # another pose takes the place of the original's
        controls = [control for control in controls if control.pose is None]
    changed: Parameters = {**parameters, "controls": controls, **order.given}  # type: ignore[typeddict-item]
    made = client.generate_batch(before if order.prompt is None else order.prompt, **changed)
    same_loras = order.prompt is None and "loras" not in order.given
    for difference in model_differences(metadata, made[0].metadata, same_loras=same_loras):
        _log.warning("%s, so more than what you asked for may change", difference)
    return made


def _without_replaced(parameters: Parameters, given: Mapping[str, Any]) -> Parameters:
    """`parameters` of a picture without those that `given` takes the place of."""
    replaced: set[str] = set()
    if "preset" in given:  # it says itself how well to draw
        replaced |= set(QUALITY_INPUTS)
    if "steps" in given or "schedule" in given:
        replaced |= _CUSTOM
    if not _CUSTOM.isdisjoint(given):
        replaced |= {"steps", "schedule", *_CUSTOM}
    named = scheduler_from_name(given.get("scheduler", ""))
    if named is not None and named.schedule is not None and not named.is_default:
        replaced |= {"schedule", *_CUSTOM}
    kept = {name: value for name, value in parameters.items() if name not in replaced}
    return cast(Parameters, kept)


def _saved(made: tuple[Image, ...], out: Path) -> dict[Path, Image]:
    found = {}
    for index, one in enumerate(made):
        name = out.name if len(made) == 1 else f"{out.stem}-{index}{out.suffix}"
        found[one.save(out.with_name(name))] = one
    return found


def _report(printed: Output, saved: Mapping[Path, Image]) -> None:
    images = [
        {
            "path": path,
            "seed": image.seed,
            "metadata": dict(image.metadata),
            "timings": dict(image.timings),
            "request_id": image.request_id,
        }
        for path, image in saved.items()
    ]
    lines = [f"{path}  {_summary(image)}" for path, image in saved.items()]
    printed.result(*lines, data={"images": images}, brief="\n".join(map(str, saved)))


def _summary(image: Image) -> str:
    """Seed, size, steps and seconds."""
    values = image.metadata
    size = f"{values['width']}x{values['height']}"
    seconds = image.timings["request"]
    return f"seed {image.seed}, {size}, {values['steps']} steps, {seconds:.2f} s"
