"""`intaglio video`: pictures -> an MP4 or a GIF.

ffmpeg-python and Pillow are imported when the command runs: its help must not need the extra.
"""

# ruff: noqa: PLC0415

from __future__ import annotations

from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path
from typing import TYPE_CHECKING, Any

import typer

from intaglio.command_output import Json, Output, Quiet, table_of
from intaglio.errors import InvalidRequest
from intaglio.exit_codes import TERMINATED
from intaglio.progress import progress_for
from intaglio.stop_signals import stopped_by_signals
from intaglio_client.video.encoders import Quality, choose_encoder
from intaglio_client.video.options import (
    AsGiven,
    AudioFile,
    Duration,
    EncoderName,
    Fit,
    FitHow,
    Force,
    FrameRate,
    Inputs,
    KenBurns,
    Out,
    QualityName,
    SizeText,
    TransitionName,
    TransitionSeconds,
    check_numbers,
    check_out,
    size_of,
    timeline_of,
)
from intaglio_client.video.sources import sources_of
from intaglio_client.video.transitions import Transition
from intaglio_client.video.views import View

if TYPE_CHECKING:
    from intaglio_client.video.encoding import Target
    from intaglio_client.video.pictures import Picture

__all__ = ["app"]

app = typer.Typer(name="video", add_completion=False, help="Make a video of pictures.")


@app.command()
def video(  # noqa: PLR0913  (one option a choice)
    inputs: Inputs,
    *,
    out: Out,
    fps: FrameRate = "24",
    duration: Duration = None,
    transition: TransitionName = Transition.NONE,
    transition_seconds: TransitionSeconds = 0.5,
    ken_burns: KenBurns = 0.0,
    size: SizeText = None,
    fit: FitHow = Fit.FIT,
    quality: QualityName = Quality.GOOD,
    encoder: EncoderName = None,
    audio: AudioFile = None,
    as_given: AsGiven = False,
    force: Force = False,
    json: Json = False,
    quiet: Quiet = False,
) -> None:
    """Make an MP4 or a GIF of pictures.

    Names are in natural order: frame2 comes before frame10. Every picture is checked before anything is
    encoded. A video that is cancelled leaves no file. With --quiet only the file is printed.
    """
    from intaglio_client.video.binary import find_ffmpeg
    from intaglio_client.video.encoding import Target, check_audio

    printed = Output(json=json, quiet=quiet)
    check_out(out, force=force)
    check_numbers({"transition-seconds": transition_seconds, "ken-burns": ken_burns})
    gif = out.suffix.lower() == ".gif"
    _check_gif(gif, encoder=encoder, audio=audio)
    sources = sources_of(inputs, as_given=as_given)
    coming = Fraction(str(transition_seconds)) if transition is not Transition.NONE else Fraction(0)
    moving = sources.of_batch or ken_burns > 0 or transition is not Transition.NONE
    timeline = timeline_of(
        len(sources.paths), frame_rate=fps, duration=duration, transition=coming, moving=moving, gif=gif
    )
    binary = find_ffmpeg()
    chosen = None if gif else choose_encoder(binary, encoder)
    if audio is not None:
        check_audio(binary, audio)
    with stopped_by_signals(code=TERMINATED):
        pictures = _checked(sources.paths, printed)
        view = View(size_of(size, pictures[0].size, even=not gif), fit.value, ken_burns)
        _note_sizes(pictures, view, printed)
        target = Target(out, view.size, timeline, quality, chosen, audio, force)
        _encode(_Job(binary, target, pictures, view, transition), printed)
    _print(target, len(pictures), printed)


@dataclass(frozen=True, slots=True)
class _Job:
    """One video, with everything checked."""

    binary: Any
    target: Target
    pictures: list[Picture]
    view: View
    transition: Transition


def _check_gif(gif: bool, *, encoder: str | None, audio: Path | None) -> None:
    if gif and encoder is not None:
        raise InvalidRequest("encoder", f"{encoder} for a GIF", allowed="an encoder for NAME.mp4")
    if gif and audio is not None:
        raise InvalidRequest("audio", f"{audio} for a GIF, which has no sound", allowed="sound for NAME.mp4")


def _checked(paths: list[Path], printed: Output) -> list[Picture]:
    from intaglio_client.video.pictures import check_pictures

    with progress_for(printed.progress, len(paths)) as progress:

        def checked(path: Path) -> None:
            progress.started(f"checking {path.name}")
            progress.finished(1)

        return check_pictures(paths, checked=checked)


def _note_sizes(pictures: list[Picture], view: View, printed: Output) -> None:
    others = sum(not view.holds(one.size) for one in pictures)
    if others:
        width, height = view.size
        printed.note(f"{others} of {len(pictures)} pictures are not {width}x{height}: {view.fit}")


def _encode(job: _Job, printed: Output) -> None:
    from intaglio_client.video.encoding import Encoding
    from intaglio_client.video.frames import frames_of

    timeline = job.target.timeline
    paths = [one.path for one in job.pictures]
    with (
        progress_for(printed.progress, timeline.frames) as progress,
        Encoding(job.binary, job.target) as encoding,
    ):
        for number, frame in enumerate(frames_of(paths, timeline, job.view, job.transition), start=1):
            progress.started(f"frame {number} of {timeline.frames}")
            encoding.add(frame)
            progress.finished(1)
    if encoding.complaint is not None:
        printed.note(f"{job.target.path} is written, but ffmpeg says: {encoding.complaint}", style="yellow")


def _print(target: Target, pictures: int, printed: Output) -> None:
    timeline = target.timeline
    width, height = target.size
    codec = target.encoder.codec if target.encoder else "gif"
    values: dict[str, Any] = {
        "file": target.path,
        "codec": codec,
        "encoder": target.encoder.name if target.encoder else "gif",
        "width": width,
        "height": height,
        "fps": float(timeline.frame_rate),
        "pictures": pictures,
        "frames": timeline.frames,
        "seconds": float(timeline.seconds),
        "bytes": target.path.stat().st_size,
    }
    row = (
        str(target.path),
        codec,
        f"{width}x{height}",
        f"{values['fps']:g}",
        str(pictures),
        f"{values['seconds']:.2f}",
        f"{values['bytes'] / 2**20:.1f} MiB",
    )
    header = ("file", "codec", "size", "fps", "pictures", "seconds", "bytes")
    printed.result(table_of([row], header=header), data=values, brief=str(target.path))
