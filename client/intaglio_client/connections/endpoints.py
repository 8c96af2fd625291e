"""Which of several servers is asked next."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Collection, Sequence
from typing import Final, Literal

from intaglio.errors import InvalidRequest
from intaglio_client.address import check_url

__all__ = ["Balance", "Endpoint", "Endpoints"]

Balance = Literal["round_robin", "least_waiting"]
"""`round_robin` asks one after another; `least_waiting` asks the one where the fewest requests wait."""
_DOWN_SECONDS: Final = 5.0
"""How long an endpoint that could not be reached or that stops is passed over while another can be asked."""
_FRESH_SECONDS: Final = 5.0
"""How long the number of waiting requests counts that a server told in a progress event."""
Clock = Callable[[], float]


class Endpoint:
    """One server, and what this client knows of how busy it is. Threads may share it."""

    def __init__(self, url: str, *, clock: Clock = time.monotonic) -> None:
        self.url = check_url(url)
        self.in_flight = 0
        """Requests of this client that it has not answered yet."""
        self._clock = clock
        self._lock = threading.Lock()
        self._told = (0, -_FRESH_SECONDS)
        self._down_until = clock()

    def enter(self) -> None:
        """Count a request that is sent to it."""
        with self._lock:
            self.in_flight += 1

    def leave(self) -> None:
        """Count the answer, or the end of the wait for it."""
        with self._lock:
            self.in_flight -= 1

    def told(self, waiting: int) -> None:
        """Note how many requests wait there, of all clients, as the server says."""
        self._told = (waiting, self._clock())

    def failed(self) -> None:
        """Pass it over for a while: it could not be reached, or it stops."""
        self._down_until = self._clock() + _DOWN_SECONDS

    @property
    def is_down(self) -> bool:
        """Whether it could not be reached, or was about to stop, a moment ago."""
        return self._clock() < self._down_until

    @property
    def load(self) -> int:
        """Requests that it has: of this client, or of all clients where the server told that of late."""
        waiting, at = self._told
        fresh = self._clock() - at < _FRESH_SECONDS
        return max(self.in_flight, waiting if fresh else 0)


class Endpoints:
    """The servers that a client may ask; each can answer every request."""

    def __init__(
        self,
        urls: str | Sequence[str],
        *,
        balance: Balance = "round_robin",
        clock: Clock = time.monotonic,
    ) -> None:
        """`urls` are host:port of gRPC.

        Raises:
            InvalidRequest: one is not host:port, there is none, or `balance` is unknown.
        """
        given = [urls] if isinstance(urls, str) else list(dict.fromkeys(urls))
        if not given:
            raise InvalidRequest("url", "none given", allowed="host:port of gRPC, or several")
        if balance not in ("round_robin", "least_waiting"):
            raise InvalidRequest("balance", f"{balance!r}", allowed="round_robin, least_waiting")
        self.all = tuple(Endpoint(url, clock=clock) for url in given)
        self._balance = balance
        self._next = 0
        self._lock = threading.Lock()

    def choose(self, *, tried: Collection[Endpoint] = ()) -> Endpoint | None:
        """The next to ask, without those in `tried`; None where all are. One that is down comes last."""
        with self._lock:
            turn = self._next % len(self.all)
            ordered = [*self.all[turn:], *self.all[:turn]]
            open_ = [one for one in ordered if one not in tried]
            candidates = [one for one in open_ if not one.is_down] or open_
            if not candidates:
                return None
            chosen = candidates[0]
            if self._balance == "least_waiting":
                chosen = min(candidates, key=lambda one: one.load)
            if not tried:  # a second choice for one request is nobody's turn
                self._next = self.all.index(chosen) + 1
            return chosen
