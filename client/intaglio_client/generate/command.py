"""`intaglio generate PROMPT`."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import typer

from intaglio.command_output import Json, Output, Quiet
from intaglio_client.address import DEFAULT_URL
from intaglio_client.client import Client
from intaglio_client.generate.characters import load_character
from intaglio_client.generate.connection import settings_from_options
from intaglio_client.generate.drawing import display_of, drawn, notes_after
from intaglio_client.generate.files import OutputFiles
from intaglio_client.generate.options import (
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
    Force,
    GuidanceBegin,
    GuidanceEnd,
    GuidanceRescale,
    GuidanceScale,
    Headers,
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
    PreviewShown,
    Priority,
    Prompt,
    QueueTimeout,
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
    TlsCa,
    TlsCert,
    TlsKey,
    TriggerWords,
    Urls,
    Verbose,
    Width,
)
from intaglio_client.generate.order import Order, in_character, question_of
from intaglio_client.generate.stated import parameters_from_options
from intaglio_client.image import Image

__all__ = ["app"]

app = typer.Typer(name="generate", add_completion=False, help="Ask a server for images.")


@app.command()
def generate(  # noqa: PLR0913  (one option a parameter)
    prompt: Prompt = None,
    *,
    out: Out = None,
    force: Force = False,
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
    priority: Priority = None,
    queue_timeout: QueueTimeout = None,
    deadline: Deadline = 300.0,
    preview: PreviewShown = False,
    url: Urls = [DEFAULT_URL],  # noqa: B006  (typer copies it)
    tls_ca: TlsCa = None,
    tls_cert: TlsCert = None,
    tls_key: TlsKey = None,
    header: Headers = None,
    verbose: Verbose = False,
    json: Json = False,
    quiet: Quiet = False,
) -> None:
    """Ask a server for images; each image says inside how it was made. Ctrl-C cancels the request on the
    server, too. With --quiet only the paths of the images are printed.
    """
    given = parameters_from_options(locals())
    if character is not None:
        prompt, given = in_character(load_character(characters, character), prompt, given)
    printed = Output(json=json, quiet=quiet)
    files = OutputFiles(out, overwrite=force)
    settings = settings_from_options(
        deadline=deadline, headers=header, ca=tls_ca, certificate=tls_cert, key=tls_key
    )
    with notes_after(printed, verbose=verbose), Client(url, **settings) as client:
        question = question_of(Order(prompt, given, like, tuple(image or ())))
        files.check(question.count)
        watching = display_of(printed, preview=preview, deadline=deadline)
        images = question.picked(drawn(client, question, watching, printed))
        _report(printed, files.save(images, note=printed.note))


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
