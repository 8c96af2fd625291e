"""`intaglio generate PROMPT`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any, get_args

import typer
from rich.console import Console
from rich.markup import escape

from intaglio.contract.models import CONTROL_KEYS
from intaglio.errors import InvalidRequest
from intaglio_client.characters import Character, load_character
from intaglio_client.client import DEFAULT_URL, Client, metadata_of
from intaglio_client.image import Image
from intaglio_client.parameters import POSE, Control, Lora, OutputFormat, Parameters, parameters_from_metadata

__all__ = ["app", "control_from_text", "lora_from_text"]

app = typer.Typer(name="generate", add_completion=False, help="Ask a server for images.")

_FORMATS = {".png": "png", ".jpg": "jpeg", ".jpeg": "jpeg", ".webp": "webp"}


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
            "--trigger-words/--no-trigger-words", help="Put trigger words that the prompt lacks at its end."
        ),
    ] = None,
    image: Annotated[
        list[Path] | None, typer.Option(help="With --like: a control image of the original; repeatable.")
    ] = None,
    url: Annotated[str, typer.Option(help="host:port of the server's gRPC.")] = DEFAULT_URL,
    deadline: Annotated[float, typer.Option(min=0.1, help="Most seconds to wait.")] = 300.0,
) -> None:
    """Ask a server for images; each says inside how it was made."""
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
    """Prompt and parameters with the character's; what was given beside it counts."""
    if prompt is None:
        raise InvalidRequest(
            "prompt", "missing", allowed="a prompt with --character: what the character does"
        )
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
    console = Console(highlight=False, soft_wrap=True)
    if like is None:
        if prompt is None:
            raise InvalidRequest("prompt", "missing", allowed="a prompt, or --like IMAGE")
        made = client.generate_batch(prompt, **given)
    elif (
        prompt is None
        and set(given) <= {"output_format"}
        and given["output_format"] == metadata_of(like).get("output_format")
    ):
        made = (client.repeat(like, images=[path.read_bytes() for path in images]),)
    else:
        before, parameters = parameters_from_metadata(
            metadata_of(like), [path.read_bytes() for path in images]
        )
        if POSE in given:  # another pose takes the place of the original's
            parameters["controls"] = [
                control for control in parameters["controls"] or () if control.pose is None
            ]
        changed: Parameters = {**parameters, **given}  # type: ignore[typeddict-item]
        made = client.generate_batch(before if prompt is None else prompt, **changed)
    for index, one in enumerate(made):
        path = one.save(out if len(made) == 1 else out.with_name(f"{out.stem}-{index}{out.suffix}"))
        console.print(f"{escape(str(path))}  {_summary(one)}")


def control_from_text(text: str) -> Control:
    """`type=canny,image=photo.png,weight=0.8` as a Control; InvalidRequest where it is none."""
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
    found = _FORMATS.get(out.suffix.lower())
    if found not in get_args(OutputFormat):
        raise InvalidRequest("out", f"{out.name!r}", allowed=f"a name that ends in {', '.join(_FORMATS)}")
    return found  # type: ignore[return-value]


def _summary(image: Image) -> str:
    """Seed, size and seconds."""
    values = image.metadata
    return f"seed {image.seed}, {values['width']}x{values['height']}, {values['steps']} steps, {image.timings['request']:.2f} s"
