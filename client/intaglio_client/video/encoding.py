"""Frames -> ffmpeg -> a file that is there as a whole or not at all."""

from __future__ import annotations

import contextlib
import os
import secrets
import subprocess
import tempfile
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import IO, Any, Final, Self

import ffmpeg
from PIL import Image

from intaglio.errors import ConfigError, IntaglioError
from intaglio.imaging.resizing import Size
from intaglio_client.video.binary import Ffmpeg, first_reason
from intaglio_client.video.encoders import Encoder, Quality
from intaglio_client.video.timeline import Timeline

__all__ = ["Encoding", "Target", "check_audio"]

_COLOURS: Final = {Quality.DRAFT: 64, Quality.GOOD: 128, Quality.BEST: 256}
"""Of each frame of a GIF."""
_MOST_SAID: Final = 1 << 16
"""Bytes that are read of ffmpeg's errors; the first one counts."""
_MOST_THREADS: Final = 8
"""Each holds frames: the 96 that libx264 starts on 64 cores would take gigabytes."""
_BT709: Final = {"colorspace": "bt709", "color_primaries": "bt709", "color_trc": "bt709", "range": "tv"}
"""What players take for granted in HD. Without the tags they guess by size, and colours shift. The frames
carry them: newer ffmpegs write the tags of the frames, whatever the options of the output say.
"""


@dataclass(frozen=True, slots=True)
class Target:
    """What is written."""

    path: Path
    size: Size
    timeline: Timeline
    quality: Quality
    encoder: Encoder | None
    """None: a GIF."""
    audio: Path | None = None
    overwrite: bool = False


class Encoding:
    """ffmpeg at work on one file.

    with Encoding(ffmpeg, target) as encoding:
        encoding.add(frame)
    """

    def __init__(self, binary: Ffmpeg, target: Target) -> None:
        self._binary = binary
        self._target = target
        self._process: subprocess.Popen[bytes] | None = None
        self.complaint: str | None = None
        """What ffmpeg found wrong with a file that it wrote all the same, as with damaged sound."""
        path = target.path
        self._partial = path.with_name(f".{path.stem}-{secrets.token_hex(4)}.part{path.suffix}")
        self._said: IO[bytes] = tempfile.TemporaryFile()  # noqa: SIM115  (closed in __exit__)

    def __enter__(self) -> Self:
        self._target.path.parent.mkdir(parents=True, exist_ok=True)
        try:
            # A session of its own: Ctrl-C must not end ffmpeg in order, or a half video would look finished.
            self._process = subprocess.Popen(
                command_of(self._binary, self._target, self._partial),
                stdin=subprocess.PIPE,
                stdout=subprocess.DEVNULL,
                stderr=self._said,
                start_new_session=True,
            )
        except BaseException:
            self._leave()
            raise
        return self

    def add(self, frame: Image.Image) -> None:
        """Encode one frame, RGB in the size of the target. Raises `IntaglioError` where ffmpeg has ended."""
        assert self._process is not None
        assert self._process.stdin is not None
        try:
            self._process.stdin.write(frame.tobytes())
        except BrokenPipeError:
            self._process.wait()
            raise self._failure() from None

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        try:
            if error is None:
                self._finish()
        finally:
            self._leave()

    def _leave(self) -> None:
        self._stop()
        self._partial.unlink(missing_ok=True)
        self._said.close()

    def _finish(self) -> None:
        assert self._process is not None
        try:
            self._process.communicate()  # closes its input; what is buffered may find the process gone
        except BrokenPipeError:
            self._process.wait()
        if self._process.returncode != 0:
            raise self._failure()
        said = self._words()
        self.complaint = first_reason(said) if said.strip() else None
        if self._target.overwrite:
            self._partial.replace(self._target.path)
            return
        try:
            os.link(self._partial, self._target.path)  # unlike a rename, it never replaces a file
        except FileExistsError:
            raise
        except OSError:  # a file system without hard links
            self._partial.replace(self._target.path)

    def _stop(self) -> None:
        process = self._process
        if process is None:
            return
        if process.poll() is None:
            process.kill()
            process.wait()
        if process.stdin is not None and not process.stdin.closed:
            with contextlib.suppress(BrokenPipeError):  # what was buffered for the process that is gone
                process.stdin.close()

    def _words(self) -> str:
        self._said.seek(0)
        return self._said.read(_MOST_SAID).decode(errors="replace")

    def _failure(self) -> IntaglioError:
        reason = first_reason(self._words())
        return IntaglioError(f"{self._target.path}: ffmpeg could not write it: {reason}")


def command_of(binary: Ffmpeg, target: Target, partial: Path) -> list[str]:
    """The command line that reads raw frames from its input and writes `partial`."""
    rate = target.timeline.frame_rate
    frames = ffmpeg.input(
        "pipe:",
        format="rawvideo",
        pix_fmt="rgb24",
        video_size=target.size,  # ffmpeg-python joins the two with an x
        framerate=f"{rate.numerator}/{rate.denominator}",
    )
    output = _mp4(frames, target, partial) if target.encoder else _gif(frames, target, partial)
    output = output.global_args("-hide_banner", "-loglevel", "error", "-nostats").overwrite_output()
    return [str(word) for word in ffmpeg.compile(output, cmd=binary.path)]


def _mp4(frames: Any, target: Target, partial: Path) -> Any:
    assert target.encoder is not None
    pixels = target.size[0] * target.size[1] * target.timeline.frame_rate
    options: dict[str, Any] = {
        "format": "mp4",
        "vcodec": target.encoder.name,
        "pix_fmt": "yuv420p",
        "threads": min(os.cpu_count() or 1, _MOST_THREADS),
        "movflags": "+faststart",  # a browser plays it before it has the whole file
        **target.encoder.options(target.quality, pixels),
    }
    video = frames.filter("scale", out_color_matrix="bt709", out_range="tv")
    video = video.filter("format", "yuv420p").filter("setparams", **_BT709)
    if target.audio is None:
        return ffmpeg.output(video, _named(partial), **options)
    sound = ffmpeg.input(_named(target.audio)).audio
    # Sound that is longer than the video is cut.
    length: Mapping[str, Any] = {"t": f"{float(target.timeline.seconds):.6f}"}
    return ffmpeg.output(
        video, sound, _named(partial), acodec="aac", audio_bitrate="192k", **length, **options
    )


def _gif(frames: Any, target: Target, partial: Path) -> Any:
    """A palette for every frame: one for all would need all frames in memory before the first is written."""
    copies = frames.filter_multi_output("split")
    colours = _COLOURS[target.quality]
    palette = copies[0].filter("palettegen", stats_mode="single", max_colors=colours)
    video = ffmpeg.filter([copies[1], palette], "paletteuse", new=1, dither="sierra2_4a")
    return ffmpeg.output(video, _named(partial), format="gif", loop=0)


def _named(path: Path) -> str:
    """The name of `path` for ffmpeg, which takes `-d/x` for an option and `a:b/x` for an address."""
    return os.path.abspath(path)


def check_audio(binary: Ffmpeg, audio: Path) -> None:
    """Decode the first second. Raises `ConfigError` where the file has no sound that ffmpeg can read."""
    if not audio.is_file():
        raise ConfigError(f"{audio}: no such file; name a file with sound")
    problem = binary.problem_of("-t", "1", "-i", _named(audio), "-map", "0:a:0", "-f", "null", "-")
    if problem is not None:
        raise ConfigError(f"{audio}: has no sound that can be read ({problem})")
