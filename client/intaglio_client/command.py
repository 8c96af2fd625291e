"""`intaglio generate PROMPT`."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any, Final, get_args

import typer
from rich.console import Console
from rich.markup import escape

from intaglio.contract.models import OutputFormat
from intaglio.errors import InvalidRequest
from intaglio.request.request import CONTROL_KEYS
from intaglio_client.characters import Character, load_character
from intaglio_client.client import DEFAULT_URL, Client, metadata_of
from intaglio_client.controls import POSE, Control
from intaglio_client.image import Image, model_differences
from intaglio_client.parameters import Lora, Parameters, parameters_from_metadata

__all__ = ["app", "control_from_text", "lora_from_text"]

app = typer.Typer(name="generate", add_completion=False, help="Ask a server for images.")

_log = logging.getLogger(__name__)
_FORMATS: Final[Mapping[str, OutputFormat]] = {
    **{f".{name}": name for name in get_args(OutputFormat)},
    ".jpg": "jpeg",
}


@app.command()
def generate(  # noqa: PLR0913  (one option a parameter)
    prompt: Annotated[
        str | None, typer.Argument(help="What to draw; left out with --like.", show_default=False)
    ] = None,
    *,
    out: Annotated[
        Path, typer.Option(help="File to write; its suffix chooses the format. Several images get numbers.")
    ] = Path("out.png"),
    like: Annotated[
        Path | None,
        typer.Option(help="Repeat this image from the metadata inside it; other options change it."),
    ] = None,
    negative_prompt: Annotated[str | None, typer.Option(help="What to avoid.")] = None,
    seed: Annotated[int | None, typer.Option(help="Left out: the server picks one and reports it.")] = None,
    width: Annotated[int | None, typer.Option(help="Pixels; a size that was built.")] = None,
    height: Annotated[int | None, typer.Option(help="Pixels; a size that was built.")] = None,
    steps: Annotated[int | None, typer.Option(help="Solver steps.")] = None,
    guidance_scale: Annotated[
        float | None, typer.Option(help="Classifier-free guidance; 1 and below is off.")
    ] = None,
    guidance_begin: Annotated[
        float | None, typer.Option(help="Share of the steps before which guidance is off.")
    ] = None,
    guidance_end: Annotated[
        float | None, typer.Option(help="Share of the steps after which guidance is off: faster.")
    ] = None,
    scheduler: Annotated[str | None, typer.Option(help="Solver.")] = None,
    num_images: Annotated[int | None, typer.Option(help="Images of this request.")] = None,
    pose: Annotated[str | None, typer.Option(help="A pose of the server's library.")] = None,
    control: Annotated[
        list[str] | None,
        typer.Option(help="type=canny,image=photo.png,weight=0.8,preprocess=canny; repeatable."),
    ] = None,
    lora: Annotated[
        list[str] | None, typer.Option(help="ID or ID:WEIGHT of a LoRA or preset; repeatable.")
    ] = None,
    character: Annotated[
        str | None, typer.Option(help="A character preset: its prompt template, negative prompt and LoRAs.")
    ] = None,
    characters: Annotated[Path, typer.Option(help="Registry that --character is looked up in.")] = Path(
        "configs/characters.yaml"
    ),
    trigger_words: Annotated[
        bool | None,
        typer.Option(
            "--trigger-words/--no-trigger-words", help="Add trigger words that the prompt lacks at its end."
        ),
    ] = None,
    image: Annotated[
        list[Path] | None, typer.Option(help="With --like: a control image of the original; repeatable.")
    ] = None,
    url: Annotated[str, typer.Option(help="host:port of the server's gRPC.")] = DEFAULT_URL,
    deadline: Annotated[float, typer.Option(min=0.1, help="Most seconds to wait.")] = 300.0,
) -> None:
    """Ask a server for images; each image says inside how it was made."""
    given = {
        "negative_prompt": negative_prompt,
        "seed": seed,
        "width": width,
        "height": height,
        "steps": steps,
        "guidance_scale": guidance_scale,
        "guidance_begin": guidance_begin,
        "guidance_end": guidance_end,
        "scheduler": scheduler,
        "num_images": num_images,
        "pose": pose,
        "controls": [control_from_text(text) for text in control] if control else None,
        "loras": [lora_from_text(text) for text in lora] if lora else None,
        "trigger_words": trigger_words,
        "output_format": _format_of(out),
    }
    given = {name: value for name, value in given.items() if value is not None}
    if character is not None:
        prompt, given = _in_character(load_character(characters, character), prompt, given)
    with Client(url, deadline=deadline) as client:
        _generate(client, prompt, given, out, like, image or [])


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


def _generate(
    client: Client,
    prompt: str | None,
    given: dict[str, Any],
    out: Path,
    like: Path | None,
    images: list[Path],
) -> None:
    if like is not None:
        made = _generate_like(client, prompt, given, like, images)
    elif prompt is None:
        raise InvalidRequest("prompt", "missing", allowed="a prompt, or --like IMAGE")
    else:
        made = client.generate_batch(prompt, **given)
    console = Console(highlight=False, soft_wrap=True)
    for index, one in enumerate(made):
        name = out.name if len(made) == 1 else f"{out.stem}-{index}{out.suffix}"
        path = one.save(out.with_name(name))
        console.print(f"{escape(str(path))}  {_summary(one)}")


def _generate_like(
    client: Client, prompt: str | None, given: dict[str, Any], like: Path, images: list[Path]
) -> tuple[Image, ...]:
    """The image `like` again, changed by `prompt` and `given`."""
    metadata = metadata_of(like)
    originals = [path.read_bytes() for path in images]
    unchanged = {"output_format": metadata.get("output_format")}
    if prompt is None and given == unchanged:
        return (client.repeat(like, images=originals),)
    before, parameters = parameters_from_metadata(metadata, originals)
    if POSE in given:  # another pose takes the place of the original's
        controls = parameters["controls"] or ()
        parameters["controls"] = [control for control in controls if control.pose is None]
    changed: Parameters = {**parameters, **given}  # type: ignore[typeddict-item]
    made = client.generate_batch(before if prompt is None else prompt, **changed)
    for difference in model_differences(metadata, made[0].metadata):
        _log.warning("%s, so more than what you asked for may change", difference)
    return made


def control_from_text(text: str) -> Control:
    """`type=canny,image=photo.png,weight=0.8` as a Control; InvalidRequest for anything else."""
    allowed = f"KEY=VALUE pairs with commas between them; keys: {', '.join(CONTROL_KEYS)}"
    values: dict[str, Any] = {}
    for pair in text.split(","):
        key, equals, value = pair.partition("=")
        if key not in CONTROL_KEYS or not equals or key in values:
            raise InvalidRequest("control", f"{pair!r}", allowed=allowed)
        values[key] = value
    if "type" not in values:
        raise InvalidRequest("control", "no type", allowed=allowed)
    for key in ("weight", "begin", "end"):
        if key in values:
            values[key] = _number(values[key], field=f"control {key}")
    if "image" in values:
        values["image"] = Path(values["image"])
    return Control(**values)


def lora_from_text(text: str) -> Lora:
    """`ID` or `ID:WEIGHT` as a Lora; InvalidRequest where the weight is no number."""
    name, colon, weight = text.partition(":")
    return Lora(name, _number(weight, field="lora weight") if colon else None)


def _number(text: str, *, field: str) -> float:
    try:
        return float(text)
    except ValueError:
        raise InvalidRequest(field, f"{text!r}", allowed="a number") from None


def _format_of(out: Path) -> OutputFormat:
    suffix = out.suffix.lower()
    if suffix not in _FORMATS:
        raise InvalidRequest("out", f"{out.name!r}", allowed=f"a name that ends in {', '.join(_FORMATS)}")
    return _FORMATS[suffix]


def _summary(image: Image) -> str:
    """Seed, size, steps and seconds."""
    values = image.metadata
    size = f"{values['width']}x{values['height']}"
    seconds = image.timings["request"]
    return f"seed {image.seed}, {size}, {values['steps']} steps, {seconds:.2f} s"
