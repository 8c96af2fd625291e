"""Encoders for MP4, in the order of preference, and what a quality means to each."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from enum import StrEnum
from fractions import Fraction
from typing import Any, Final

from intaglio.errors import IntaglioError, InvalidRequest
from intaglio_client.video.binary import Ffmpeg

__all__ = ["ENCODERS", "Encoder", "Quality", "choose_encoder"]


class Quality(StrEnum):
    """How near the video is to its pictures; better ones take more bytes."""

    DRAFT = "draft"
    GOOD = "good"
    BEST = "best"


Options = Mapping[str, Any]
"""Options of ffmpeg for one output."""


@dataclass(frozen=True, slots=True)
class Encoder:
    """One of ffmpeg's encoders."""

    name: str
    codec: str
    """The standard that it writes, as files name it."""
    options: Callable[[Quality, Fraction], Options]
    """What a quality means to it; the second value is pixels a second."""


_CONSTANT_RATE_FACTORS: Final = {Quality.DRAFT: 28, Quality.GOOD: 20, Quality.BEST: 14}
_BITS_A_PIXEL: Final = {Quality.DRAFT: 0.06, Quality.GOOD: 0.15, Quality.BEST: 0.35}
_QUANTISERS: Final = {Quality.DRAFT: 8, Quality.GOOD: 4, Quality.BEST: 2}


def _x264(quality: Quality, pixels: Fraction) -> Options:
    """`veryfast` takes half the memory and a third of the time of `medium`, for about the same bytes here."""
    return {"crf": _CONSTANT_RATE_FACTORS[quality], "preset": "veryfast"}


def _openh264(quality: Quality, pixels: Fraction) -> Options:
    """It knows bit rates only."""
    return {"b:v": max(round(float(pixels) * _BITS_A_PIXEL[quality]), 100_000)}


def _nvenc(quality: Quality, pixels: Fraction) -> Options:
    return {"rc": "vbr", "cq": _CONSTANT_RATE_FACTORS[quality] + 3, "b:v": 0}


def _vp9(quality: Quality, pixels: Fraction) -> Options:
    """A bit rate of 0 lets the factor alone decide; row-mt and cpu-used keep it near the speed of H.264."""
    factors = {Quality.DRAFT: 42, Quality.GOOD: 32, Quality.BEST: 22}
    return {"crf": factors[quality], "b:v": 0, "deadline": "good", "cpu-used": 5, "row-mt": 1}


def _mpeg4(quality: Quality, pixels: Fraction) -> Options:
    return {"q:v": _QUANTISERS[quality]}


ENCODERS: Final[Mapping[str, Encoder]] = {
    one.name: one
    for one in (
        Encoder("libx264", "h264", _x264),
        Encoder("libopenh264", "h264", _openh264),
        Encoder("h264_nvenc", "h264", _nvenc),
        Encoder("libvpx-vp9", "vp9", _vp9),
        Encoder("mpeg4", "mpeg4", _mpeg4),
    )
}
"""H.264 first, since everything plays it; then VP9, then MPEG-4. The card's own encoder comes after those of
the processor: for pictures that are composed here it is not what decides the speed.
"""


def choose_encoder(ffmpeg: Ffmpeg, wanted: str | None) -> Encoder:
    """The encoder of that name; None: the first that ffmpeg has and that works here.

    Raises:
        InvalidRequest: the one that is wanted is not there, or does not work; the message has the choices.
        IntaglioError: there is none at all.
    """
    present = [one for name, one in ENCODERS.items() if name in ffmpeg.encoders]
    if wanted is not None and wanted not in {one.name for one in present}:
        raise InvalidRequest("encoder", f"{ffmpeg.path} has no {wanted}", allowed=_choices(present))
    problems = []
    for one in present if wanted is None else [ENCODERS[wanted]]:
        problem = _problem_of(ffmpeg, one)
        if problem is None:
            return one
        problems.append(f"{one.name}: {problem}")
    if wanted is not None:
        others = [one for one in present if one.name != wanted]
        raise InvalidRequest("encoder", "; ".join(problems), allowed=_choices(others))
    tried = "; ".join(problems) or "it was built without them"
    raise IntaglioError(
        f"{ffmpeg.path}: encodes none of {', '.join(ENCODERS)} ({tried}); install another ffmpeg"
    )


def _problem_of(ffmpeg: Ffmpeg, encoder: Encoder) -> str | None:
    """Encode a tenth of a second. A build may have an encoder whose library or card is not there."""
    picture = ("-f", "lavfi", "-i", "color=size=320x240:rate=10:duration=0.1")
    return ffmpeg.problem_of(*picture, "-c:v", encoder.name, "-pix_fmt", "yuv420p", "-f", "null", "-")


def _choices(encoders: list[Encoder]) -> str:
    return " or ".join(one.name for one in encoders) or "none: this ffmpeg has no other"
