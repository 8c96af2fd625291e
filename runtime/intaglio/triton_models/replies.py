"""How the caller of `diffuse` hears of a picture: one answer, or an answer for every few events.

A Triton model inside an ensemble cannot send several responses to a request. So a caller that watches a
picture asks again and again for its next events, and each of these requests is answered as soon as there are
some.
"""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Callable, Mapping
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from intaglio.contract.ports import string_tensor
from intaglio.engines.interface import Array

__all__ = ["Answer", "Event", "Reply", "Single", "Watched"]

Event = Mapping[str, Any]
Answer = Callable[[Any], None]
"""Sends the one response of a request."""
Outputs = Mapping[str, Array]


class Reply(Protocol):
    """What a picture's events go to."""

    wants_latents: bool
    """Whether an event is worth the latents so far."""

    def post(self, event: Event, latents: NDArray[np.float32] | None = None) -> None:
        """Something has happened, and the picture goes on."""

    def end(self, response: Any) -> None:
        """The picture is over, and `response` is the last one."""

    def is_abandoned(self) -> bool:
        """Whether nobody wants the picture any more."""


class Single:
    """The caller waits for the picture."""

    wants_latents = False

    def __init__(self, send: Answer, is_cancelled: Callable[[], bool]) -> None:
        self._send = send
        self._is_cancelled = is_cancelled

    def post(self, event: Event, latents: NDArray[np.float32] | None = None) -> None:
        """Nobody watches."""

    def end(self, response: Any) -> None:
        """Answer."""
        self._send(response)

    def is_abandoned(self) -> bool:
        """Whether Triton knows that the caller is gone."""
        return self._is_cancelled()


class Watched:
    """The caller asks for events; they are kept until then. Any thread may call any method."""

    def __init__(self, respond: Callable[[Outputs], Any], *, wants_latents: bool, patience: float) -> None:
        """`respond` makes a response of outputs. A caller that is silent for `patience` seconds is gone."""
        self._respond = respond
        self._patience = patience
        self.wants_latents = wants_latents
        self._lock = threading.Lock()
        self._events: list[str] = []
        self._latents: NDArray[np.float32] | None = None
        """Those of the latest event; earlier ones are of no use."""
        self._last: Any = None
        self._answer: Answer | None = None
        """Of the request that waits for events."""
        self._heard = time.monotonic()
        self._told_all = False

    def ask(self, answer: Answer) -> None:
        """Answer with the next events, now or as soon as there are some."""
        with self._lock:
            self._heard = time.monotonic()
            # Two requests of one picture: the earlier one would wait for ever.
            displaced, self._answer = self._answer, answer
            if displaced is not None:
                displaced(self._respond({"event": string_tensor(json.dumps({"kind": "displaced"}))}))
            self._flush()

    def post(self, event: Event, latents: NDArray[np.float32] | None = None) -> None:
        """Keep `event` for the caller, or answer it."""
        with self._lock:
            self._events.append(json.dumps(event))
            self._latents = latents
            self._flush()

    def end(self, response: Any) -> None:
        """Keep the last `response` for the caller, or answer it; events that it lacks are older news."""
        with self._lock:
            self._last = response
            self._flush()

    def is_abandoned(self) -> bool:
        """Whether the caller no longer asks."""
        with self._lock:
            return self._answer is None and time.monotonic() - self._heard > self._patience

    @property
    def is_over(self) -> bool:
        """Whether the caller has the last response."""
        with self._lock:
            return self._told_all

    @property
    def _pending(self) -> bool:
        return bool(self._events) or self._last is not None

    def _flush(self) -> None:
        """Answer the request that waits, if there is something to say. The caller holds the lock."""
        if self._answer is None or not self._pending:
            return
        answer, self._answer = self._answer, None
        self._heard = time.monotonic()
        if self._events:
            outputs: dict[str, Array] = {"event": string_tensor(*self._events)}
            if self._latents is not None:
                outputs["latents"] = self._latents
            self._events = []
            self._latents = None
            answer(self._respond(outputs))
        else:
            answer(self._last)
            self._last = None
            self._told_all = True
