"""The options of `intaglio generate`, each a type that typer reads."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Final, get_args

import typer

from intaglio.contract.models import Schedule, Scheduler
from intaglio_client.address import URL_VARIABLE
from intaglio_client.generate.option_texts import CONTROL_HELP

__all__ = [
    "CharacterName",
    "CharactersFile",
    "ClipSkip",
    "ControlEvery",
    "ControlGuidanceEnd",
    "ControlGuidanceStart",
    "ControlnetConditioningScale",
    "Controls",
    "Deadline",
    "Eta",
    "Force",
    "GuidanceBegin",
    "GuidanceEnd",
    "GuidanceRescale",
    "GuidanceScale",
    "Headers",
    "Height",
    "Images",
    "Like",
    "Loras",
    "NegativePreset",
    "NegativePrompt",
    "NumImages",
    "Out",
    "Pose",
    "Preset",
    "PreviewShown",
    "Priority",
    "Prompt",
    "QueueTimeout",
    "Scene",
    "ScheduleName",
    "SchedulerName",
    "Seed",
    "Sigmas",
    "SparseBegin",
    "SparseEvery",
    "Steps",
    "Style",
    "Timesteps",
    "TlsCa",
    "TlsCert",
    "TlsKey",
    "TriggerWords",
    "Urls",
    "Verbose",
    "Width",
]

_SCHEDULERS: Final = ", ".join(get_args(Scheduler))
_SCHEDULES: Final = ", ".join(get_args(Schedule))

Prompt = Annotated[
    str | None,
    typer.Argument(
        help="What to draw; left out with --like. (word:1.3) weights a word, <lora:night:0.8> applies a "
        "LoRA.",
        show_default=False,
    ),
]
Out = Annotated[
    Path | None,
    typer.Option(
        help="File to write; its suffix chooses the format. Several images get numbers. Left out: out.png, "
        "or the next name that is free.",
        show_default=False,
    ),
]
Force = Annotated[bool, typer.Option("--force", help="Overwrite files that exist.")]
Like = Annotated[
    Path | None,
    typer.Option(help="Repeat this image from the metadata inside it; other options change it."),
]
NegativePrompt = Annotated[str | None, typer.Option(help="What to avoid.")]
Seed = Annotated[int | None, typer.Option(help="Left out or -1: the server picks one and reports it.")]
Width = Annotated[int | None, typer.Option(help="Pixels; a size that was built.")]
Height = Annotated[int | None, typer.Option(help="Pixels; a size that was built.")]
Steps = Annotated[
    list[int] | None,
    typer.Option(
        "--steps",
        "--num-inference-steps",
        metavar="<int>",
        help="Solver steps; also --num-inference-steps.",
    ),
]
GuidanceScale = Annotated[
    list[float] | None,
    typer.Option(
        "--guidance-scale",
        "--cfg-scale",
        "--cfg",
        metavar="<float>",
        help="Classifier-free guidance; 1 and below is off; also --cfg-scale, --cfg.",
    ),
]
GuidanceRescale = Annotated[
    float | None, typer.Option(help="0 to 1: keeps guidance from raising the contrast; v-prediction: 0.7.")
]
GuidanceBegin = Annotated[float | None, typer.Option(help="Share of the steps before which guidance is off.")]
GuidanceEnd = Annotated[
    float | None, typer.Option(help="Share of the steps after which guidance is off: faster.")
]
SchedulerName = Annotated[
    list[str] | None,
    typer.Option(
        "--scheduler",
        "--sampler",
        metavar="<str>",
        help=f"Solver: {_SCHEDULERS}. Names of diffusers, A1111 and ComfyUI are understood; also --sampler.",
    ),
]
ClipSkip = Annotated[
    int | None,
    typer.Option(help="Layers of the text encoders to skip, as in diffusers: 1 is A1111's Clip skip 3."),
]
ScheduleName = Annotated[
    str | None, typer.Option(metavar="<str>", help=f"Where the steps lie: {_SCHEDULES}; absent: the model's.")
]
Timesteps = Annotated[
    str | None,
    typer.Option(metavar="<list>", help="Training times of the steps, such as 999,749, in place of --steps."),
]
Sigmas = Annotated[
    str | None,
    typer.Option(metavar="<list>", help="Noise levels of the steps and of the end, in place of --steps."),
]
SparseBegin = Annotated[
    float | None, typer.Option(help="Share of the steps before which --sparse-every waits.")
]
SparseEvery = Annotated[
    int | None, typer.Option(help="After --sparse-begin, 2 takes every second step, 3 every third.")
]
Eta = Annotated[float | None, typer.Option(help="New noise in each step: eta of ddim, gamma of tcd.")]
NumImages = Annotated[
    list[int] | None,
    typer.Option(
        "--num-images",
        "--num-images-per-prompt",
        "--n",
        "-n",
        metavar="<int>",
        help="Images of this request; also --num-images-per-prompt, --n.",
    ),
]
Pose = Annotated[str | None, typer.Option(help="A pose of the server's library.")]
Controls = Annotated[list[str] | None, typer.Option(help=CONTROL_HELP)]
ControlEvery = Annotated[
    int | None,
    typer.Option(help="2: the ControlNets run in every second step; faster, nearly the same image."),
]
ControlnetConditioningScale = Annotated[
    list[float] | None, typer.Option(help="Weight of every control; repeated, one for each.")
]
ControlGuidanceStart = Annotated[
    list[float] | None, typer.Option(help="`begin` of every control; repeated, one for each.")
]
ControlGuidanceEnd = Annotated[
    list[float] | None, typer.Option(help="`end` of every control; repeated, one for each.")
]
Loras = Annotated[list[str] | None, typer.Option(help="ID or ID:WEIGHT of a LoRA or preset; repeatable.")]
CharacterName = Annotated[
    str | None, typer.Option(help="A character preset: its prompt template, negative prompt and LoRAs.")
]
CharactersFile = Annotated[Path, typer.Option(help="Registry that --character is looked up in.")]
TriggerWords = Annotated[
    bool | None,
    typer.Option(
        "--trigger-words/--no-trigger-words", help="Add trigger words that the prompt lacks at its end."
    ),
]
Preset = Annotated[
    str | None, typer.Option(help="A quality preset of the server: values for options that are left out.")
]
Style = Annotated[
    str | None, typer.Option(help="A style of the server: a template for the prompt, and a negative prompt.")
]
NegativePreset = Annotated[
    str | None, typer.Option(help="A negative prompt of the server; --negative-prompt comes before it.")
]
Scene = Annotated[str | None, typer.Option(help="A scene of the server: text that the prompt gets.")]
Images = Annotated[
    list[Path] | None, typer.Option(help="With --like: a control image of the original; repeatable.")
]
Priority = Annotated[
    str | None, typer.Option(metavar="<str>", help="interactive, or batch: interactive requests go first.")
]
QueueTimeout = Annotated[
    float | None, typer.Option(help="Most seconds that the request may wait for its turn.")
]
Deadline = Annotated[float, typer.Option(min=0.1, help="Most seconds to wait; the server stops then, too.")]
PreviewShown = Annotated[
    bool,
    typer.Option("--preview", help="Show on the terminal what is drawn so far, as pixels or half blocks."),
]
Urls = Annotated[
    list[str],
    typer.Option(
        envvar=URL_VARIABLE, help="host:port of the server's gRPC; repeatable: the next where one is away."
    ),
]
TlsCa = Annotated[
    Path | None,
    typer.Option("--tls-ca", help="Encrypt: certificates (PEM) that may have signed the server's."),
]
TlsCert = Annotated[
    Path | None, typer.Option("--tls-cert", help="Encrypt: our certificate (PEM), for a server that asks.")
]
TlsKey = Annotated[Path | None, typer.Option("--tls-key", help="The private key of --tls-cert.")]
Headers = Annotated[
    list[str] | None,
    typer.Option(
        "--header", metavar="<name: value>", help="Sent with the request, such as authorization; repeatable."
    ),
]
Verbose = Annotated[
    bool, typer.Option("--verbose", "-v", help="Say also why a request was sent again or not streamed.")
]
