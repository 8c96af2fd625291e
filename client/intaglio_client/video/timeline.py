"""What each frame of a video shows.

Picture `i` of `n` is shown from second `i * duration` to `(i + 1) * duration`. In the last `transition`
seconds of that time the next picture comes in. So a video lasts `n * duration` seconds, whatever the
transition.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from fractions import Fraction

__all__ = ["Moment", "Timeline"]


@dataclass(frozen=True, slots=True)
class Moment:
    """One frame."""

    picture: int
    progress: float
    """How far the picture is, from 0 at its first frame to 1 at its last, those of transitions among them."""
    following: int | None = None
    """The picture that comes in."""
    following_progress: float = 0.0
    share: float = 0.0
    """How much of the transition is done, more than 0 and less than 1."""


@dataclass(frozen=True, slots=True)
class Timeline:
    """The frames of a video."""

    pictures: int
    frame_rate: Fraction
    """Frames a second."""
    duration: Fraction
    """Seconds a picture, at least one frame."""
    transition: Fraction = Fraction(0)
    """Seconds in which the next picture comes in, less than `duration`."""

    @property
    def frames(self) -> int:
        return self._begin(self.pictures)

    @property
    def seconds(self) -> Fraction:
        return Fraction(self.frames) / self.frame_rate

    def moments(self) -> Iterator[Moment]:
        """Every frame, in order."""
        for picture in range(self.pictures):
            begin, end = self._begin(picture), self._begin(picture + 1)
            coming = self._coming(picture)
            for frame in range(begin, end):
                progress = self._progress(picture, frame)
                if frame < coming:
                    yield Moment(picture, progress)
                else:
                    share = (frame - coming + 1) / (end - coming + 1)
                    later = picture + 1
                    yield Moment(picture, progress, later, self._progress(later, frame), share)

    def _begin(self, picture: int) -> int:
        """The frame at which the time of a picture begins; rounded, so that no error adds up."""
        return round(picture * self.duration * self.frame_rate)

    def _coming(self, picture: int) -> int:
        """The frame at which the next picture begins to come in; the end of the picture where none does."""
        end = self._begin(picture + 1)
        if picture + 1 >= self.pictures:
            return end
        return max(end - round(self.transition * self.frame_rate), self._begin(picture))

    def _progress(self, picture: int, frame: int) -> float:
        first = self._coming(picture - 1) if picture else 0
        last = self._begin(picture + 1) - 1
        return (frame - first) / (last - first) if last > first else 0.0
