"""Which ffmpeg works, and what it can encode."""

from __future__ import annotations

import re
import shutil
import subprocess
from functools import cached_property
from typing import Final

from intaglio.errors import IntaglioError

__all__ = ["Ffmpeg", "find_ffmpeg", "first_reason"]

_ENCODER: Final = re.compile(r"^ ([VAS])\S{5} (\S+) ", re.MULTILINE)
"""A line of `ffmpeg -encoders`: flags of six letters, of which the first says the kind, and a name."""
_SPEAKER: Final = re.compile(r"^(\[[^\]]* @ 0x[0-9a-f]+\] ?)+")
"""Which part of ffmpeg says something, and its address."""
_SECONDS: Final = 60
"""Within which ffmpeg says what it can do; a busy machine may be slow to load it."""


class Ffmpeg:
    """One binary."""

    def __init__(self, path: str) -> None:
        self.path = path

    @cached_property
    def encoders(self) -> frozenset[str]:
        """Names of the encoders that it was built with."""
        said = self._said("-encoders")
        return frozenset(name for _, name in _ENCODER.findall(said))

    def problem_of(self, *words: str) -> str | None:
        """What goes wrong when it runs `words`; None where it ends well."""
        command = [self.path, "-hide_banner", "-loglevel", "error", "-nostdin", *words]
        done = subprocess.run(command, capture_output=True, text=True, errors="replace", timeout=_SECONDS)  # noqa: PLW1510
        return None if done.returncode == 0 else first_reason(done.stderr)

    def _said(self, question: str) -> str:
        command = [self.path, "-hide_banner", question]
        try:
            done = subprocess.run(
                command, capture_output=True, text=True, errors="replace", timeout=_SECONDS, check=True
            )
        except (OSError, subprocess.SubprocessError) as error:
            raise IntaglioError(f"{self.path}: does not run ({error}); install ffmpeg") from error
        return done.stdout


def find_ffmpeg() -> Ffmpeg:
    """The ffmpeg on PATH, else the one that imageio-ffmpeg brings.

    Raises:
        IntaglioError: there is none.
        ModuleNotFoundError: imageio-ffmpeg is not installed either (`intaglio.extras` names the extra).
    """
    found = shutil.which("ffmpeg")
    if found is None:
        import imageio_ffmpeg  # noqa: PLC0415  (not needed where ffmpeg is installed)

        try:
            found = imageio_ffmpeg.get_ffmpeg_exe()
        except RuntimeError as error:
            raise IntaglioError(
                f"no ffmpeg on PATH, and imageio-ffmpeg has none for this machine: {error}"
            ) from error
    return Ffmpeg(found)


def first_reason(said: str) -> str:
    """The first error that ffmpeg wrote: those after it follow from it."""
    lines = [_SPEAKER.sub("", line).strip() for line in said.splitlines()]
    return next((line for line in lines if line), "ffmpeg gave no reason")
