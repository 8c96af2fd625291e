"""When a request is sent again, and after which pause.

A request is sent again only where that draws no picture twice: the server refused it before it began (its
queue was full, or it stops), there was no connection, or the request has a seed, so that the second picture
is the first. Other endpoints are asked first, without a pause.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

from intaglio.errors import IntaglioError, InvalidRequest, QueueFull, Stopping, Unavailable
from intaglio_client.errors import Unreachable

__all__ = ["NO_RETRIES", "Retries", "is_retried"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Retries:
    """How often, and with which pauses: `first` seconds, then twice as long each time, up to `longest`.

    A pause is a random share of that, from a half to the whole, so that clients do not come back together.
    Where the server says when to try again, the pause is at least that long.
    """

    most: int = 2
    """Further rounds through all endpoints; 0 sends a request at most once to each."""
    first: float = 0.5
    longest: float = 20.0
    """A server that says a longer time than this is not asked again."""

    def __post_init__(self) -> None:
        if self.most < 0 or not 0 < self.first <= self.longest:
            problem = f"most {self.most}, first {self.first}, longest {self.longest}"
            raise InvalidRequest("retries", problem, allowed="most from 0, and 0 < first <= longest")

    def pause(self, round_: int, *, hint: float | None, share: float) -> float | None:
        """Seconds before the round `round_`, from 1; None where the hint is too long.

        `share` is a random number from 0 to 1.
        """
        if hint is not None:
            return None if hint > self.longest else hint * (1 + 0.25 * share)
        whole = min(self.first * 2.0 ** (round_ - 1), self.longest)
        return whole * (0.5 + 0.5 * share)


NO_RETRIES: Final = Retries(most=0)
"""Ask each endpoint once."""


def is_retried(error: IntaglioError, *, is_repeatable: bool) -> bool:
    """Whether a request that ended with `error` may be sent again."""
    if isinstance(error, QueueFull | Stopping | Unreachable):
        return True
    # Not its other kinds: LoRAs that cannot be applied stay so, and so does a model that is not served.
    return is_repeatable and type(error) is Unavailable
