"""The options of `intaglio video`, each a type that typer reads, and the values that they become."""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from enum import StrEnum
from fractions import Fraction
from pathlib import Path
from typing import Annotated, Final

import typer

from intaglio.errors import InvalidRequest
from intaglio.imaging.resizing import Size
from intaglio_client.video.encoders import ENCODERS, Quality
from intaglio_client.video.timeline import Timeline
from intaglio_client.video.transitions import Transition

__all__ = [
    "AsGiven",
    "AudioFile",
    "Duration",
    "EncoderName",
    "Fit",
    "FitHow",
    "Force",
    "FrameRate",
    "Inputs",
    "KenBurns",
    "Out",
    "QualityName",
    "SizeText",
    "TransitionName",
    "TransitionSeconds",
    "check_numbers",
    "check_out",
    "size_of",
    "timeline_of",
]

MOVING_SECONDS: Final = Fraction(2)
"""Of each picture where nothing else is said, in a video in which one frame would show nothing of it."""
_MOST_FRAMES_A_SECOND: Final = 240
_MOST_GIF_FRAMES_A_SECOND: Final = 50
"""A GIF counts hundredths of seconds, and players slow down what is shown for a single one."""
_MOST_SIDE: Final = 8192
_SIZE: Final = re.compile(r"(\d{1,5})x(\d{1,5})")
_SUFFIXES: Final = (".mp4", ".gif")


class Fit(StrEnum):
    """How a picture of another shape gets the video's size; as in a control's `resize`."""

    FIT = "fit"
    FILL = "fill"
    STRETCH = "stretch"


Inputs = Annotated[
    list[str],
    typer.Argument(
        help="A folder of pictures, a manifest of `intaglio batch` or its folder, pictures, or a pattern"
        " such as 'frames/*.png'.",
        show_default=False,
    ),
]
Out = Annotated[Path, typer.Option("--out", "-o", help="The file: NAME.mp4 or NAME.gif.", show_default=False)]
FrameRate = Annotated[str, typer.Option("--fps", help="Frames a second: 24, 29.97 or 30000/1001.")]
Duration = Annotated[
    float | None,
    typer.Option(
        help="Seconds that each picture is shown. Left out: one frame; 2 s for a batch, with a transition and"
        " with --ken-burns.",
        min=0.001,
        show_default=False,
    ),
]
TransitionName = Annotated[Transition, typer.Option("--transition", help="How one picture follows another.")]
TransitionSeconds = Annotated[
    float, typer.Option("--transition-seconds", help="How long it takes; a part of --duration.", min=0.0)
]
KenBurns = Annotated[
    float,
    typer.Option(
        "--ken-burns",
        help="Move slowly into pictures and out of them; by how much: 0.2 is a fifth.",
        min=0.0,
        max=1.0,
    ),
]
SizeText = Annotated[
    str | None,
    typer.Option("--size", help="Such as 1280x720. Left out: the first picture's.", show_default=False),
]
FitHow = Annotated[
    Fit,
    typer.Option(
        "--fit",
        help="Pictures of another shape: black borders (fit), cut at the centre (fill), or stretched.",
    ),
]
QualityName = Annotated[Quality, typer.Option("--quality", help="Better takes more bytes.")]
EncoderName = Annotated[
    str | None,
    typer.Option(
        "--encoder",
        help=f"One of ffmpeg's: {', '.join(ENCODERS)}. Left out: the first of them that works here.",
        show_default=False,
    ),
]
AudioFile = Annotated[
    Path | None,
    typer.Option(help="A file whose sound the video gets; what is longer is cut.", show_default=False),
]
AsGiven = Annotated[
    bool, typer.Option("--as-given", help="Keep the order of the pictures that are named one by one.")
]
Force = Annotated[bool, typer.Option("--force", help="Overwrite the file if it exists.")]


def check_out(out: Path, *, force: bool) -> None:
    """Raises `InvalidRequest` where `out` is no video's name, or exists."""
    if out.suffix.lower() not in _SUFFIXES:
        raise InvalidRequest(
            "out", f"{str(out)!r}", allowed=f"a file that ends with {' or '.join(_SUFFIXES)}"
        )
    if out.exists() and not force:
        raise InvalidRequest("out", f"{out} exists", allowed="another name, or --force to overwrite")


def check_numbers(values: Mapping[str, float]) -> None:
    """Raises `InvalidRequest` for what is no finite number: the bounds of an option let `inf` pass."""
    for name, value in values.items():
        if not math.isfinite(value):
            raise InvalidRequest(name, f"{value}", allowed="a number")


def size_of(text: str | None, first: Size, *, even: bool) -> Size:
    """The video's size: the one that `text` says, or that of the first picture.

    An odd side of a picture loses a pixel where the size must be even: H.264 halves the colours' resolution.

    Raises:
        InvalidRequest: `text` is no size, or a side is too large or, with `even`, odd.
    """
    sides = f"sides of {2 if even else 1} to {_MOST_SIDE} pixels"
    if text is None:
        size = (first[0] - first[0] % 2, first[1] - first[1] % 2) if even else first
        if not all(1 <= side <= _MOST_SIDE for side in size):
            raise InvalidRequest(
                "size", f"the first picture is {first[0]}x{first[1]}", allowed=f"{sides}: use --size"
            )
        return size
    found = _SIZE.fullmatch(text)
    size = (int(found[1]), int(found[2])) if found else (0, 0)
    if not all(1 <= side <= _MOST_SIDE for side in size):
        raise InvalidRequest("size", f"{text!r}", allowed=f"WIDTHxHEIGHT, {sides}")
    if even and any(side % 2 for side in size):
        raise InvalidRequest("size", f"{text} has an odd side", allowed="even sides; a GIF may have odd ones")
    return size


def timeline_of(
    pictures: int,
    *,
    frame_rate: str,
    duration: float | None,
    transition: Fraction,
    moving: bool,
    gif: bool,
) -> Timeline:
    """The frames of the video.

    Args:
        pictures: how many.
        frame_rate, duration: what the options say.
        transition: seconds of the transition, 0 where there is none.
        moving: whether a single frame would show nothing of a picture.
        gif: whether a GIF is written.

    Raises:
        InvalidRequest: the options contradict each other.
    """
    if duration is not None:
        check_numbers({"duration": duration})
    rate = _rate_of(frame_rate, most=_MOST_GIF_FRAMES_A_SECOND if gif else _MOST_FRAMES_A_SECOND)
    seconds = MOVING_SECONDS if moving else 1 / rate
    if duration is not None:
        seconds = Fraction(str(duration))
    if seconds * rate < 1:
        raise InvalidRequest(
            "duration",
            f"{float(seconds):g} s is less than a frame",
            allowed=f"at least {float(1 / rate):.4f} s",
        )
    if transition and transition >= seconds:
        raise InvalidRequest(
            "transition-seconds",
            f"{float(transition):g} s",
            allowed=f"less than --duration, {float(seconds):g} s",
        )
    return Timeline(pictures, rate, seconds, transition)


def _rate_of(text: str, *, most: int) -> Fraction:
    try:
        rate = Fraction(text)
    except (ValueError, ZeroDivisionError):
        rate = Fraction(0)
    if not Fraction(1, 10) <= rate <= most or rate.denominator > 1001:
        raise InvalidRequest("fps", f"{text!r}", allowed=f"0.1 to {most}, such as 24, 29.97 or 30000/1001")
    return rate
