"""Triton over HTTP: its health, and what an administrator may do."""

from __future__ import annotations

import contextlib
import http.client
import json
import math
import socket
import threading
import time
from collections.abc import Collection, Iterator, Mapping
from typing import Final

from intaglio.errors import Unavailable, single_line
from intaglio.serving.arguments import SECRET_HEADER
from intaglio.serving.triton_log import load_failure

__all__ = ["Administration"]

_LONGEST_ANSWER: Final = 1 << 20
"""Bytes that are read of an answer; Triton's are shorter."""
_INDEX_SECONDS: Final = 10.0
"""The longest that Triton may take to list its models while it loads none."""
_SHORTEST_SECONDS: Final = 0.1
"""Of any request, however little time is left."""


class Administration:
    """The requests to one Triton at `url` (`host:port` of HTTP).

    Another program may answer there: one that took the port before Triton, or another Triton. So what answers
    must also say that it is `name`, and whatever it sends is an answer or Unavailable.
    """

    def __init__(self, url: str, *, name: str, secret: str, load_seconds: float) -> None:
        self._url = url
        self._name = name
        self._secret = secret
        self._load_seconds = load_seconds

    def is_ready(self) -> bool:
        """Whether every model of this server is loaded."""
        return self._answers("/v2/health/ready", seconds=1.0) and self._is_this_server()

    def is_live(self) -> bool:
        """Whether the server answers its liveness probe within two seconds."""
        return self._answers("/v2/health/live", seconds=2.0)

    def has_loaded(self, version: int, models: Collection[str]) -> bool:
        """Whether `version` of any of `models` is loaded, or still finishes its requests.

        Raises:
            Unavailable: Triton does not answer.
        """
        return str(version) in self._loaded(models)

    def has_loaded_others(self, version: int, models: Collection[str]) -> bool:
        """Whether any other version of any of `models` is loaded, or still finishes its requests.

        Raises:
            Unavailable: Triton does not answer.
        """
        return bool(self._loaded(models, seconds=_INDEX_SECONDS) - {str(version)})

    def _loaded(self, models: Collection[str], *, seconds: float | None = None) -> set[str]:
        """The versions of any of `models` that are not unloaded."""
        answer = self._post("index", seconds=seconds)
        try:
            index = [
                (item["name"], item.get("version"), item.get("state", "")) for item in json.loads(answer)
            ]
        except (ValueError, TypeError, LookupError, AttributeError) as error:
            raise Unavailable("Triton answers with something that is no list of its models") from error
        found = ((number, state) for name, number, state in index if name in models)
        return {str(number) for number, state in found if number is not None and state != "UNAVAILABLE"}

    def load_model(self, model: str, *, until: float = math.inf) -> None:
        """Load of `model` what the repository says, and unload the rest; returns when that is done.

        Raises:
            Unavailable: it cannot be loaded, with the reason, and what was loaded before still is. Or Triton
                does not answer, at the latest at `until`, as `time.monotonic` has it.
        """
        self._post(f"models/{model}/load", seconds=until - time.monotonic())

    def unload_model(self, model: str, *, until: float) -> None:
        """Unload `model`, whose requests are still finished; returns before that.

        Raises:
            Unavailable: Triton does not answer, at the latest at `until`.
        """
        self._post(f"models/{model}/unload", seconds=until - time.monotonic())

    def _post(self, what: str, *, seconds: float | None = None) -> bytes:
        allowed = self._load_seconds if seconds is None else min(seconds, self._load_seconds)
        status, body = self._ask(
            "POST",
            f"/v2/repository/{what}",
            seconds=max(allowed, _SHORTEST_SECONDS),
            headers={SECRET_HEADER: self._secret},
        )
        if status != http.client.OK:
            raise Unavailable(_reason(body.decode("utf-8", "replace"), status))
        return body

    def _answers(self, path: str, *, seconds: float) -> bool:
        with contextlib.suppress(Unavailable):
            return self._ask("GET", path, seconds=seconds)[0] == http.client.OK
        return False

    def _is_this_server(self) -> bool:
        with contextlib.suppress(Unavailable, ValueError, TypeError, LookupError):
            _, body = self._ask("GET", "/v2", seconds=1.0)
            return bool(json.loads(body)["name"] == self._name)
        return False

    def _ask(
        self, method: str, path: str, *, seconds: float, headers: Mapping[str, str] | None = None
    ) -> tuple[int, bytes]:
        """Status and body of the answer.

        Raises:
            Unavailable: there is no whole answer after `seconds`.
        """
        connection = http.client.HTTPConnection(self._url, timeout=seconds)
        try:
            connection.connect()
            with _cut_after(seconds, connection.sock):
                body = b"{}" if method == "POST" else None
                connection.request(method, path, body=body, headers=dict(headers or {}))
                response = connection.getresponse()
                return response.status, response.read(_LONGEST_ANSWER)
        except (OSError, ValueError, RuntimeError, http.client.HTTPException) as error:
            said = str(error) or type(error).__name__
            raise Unavailable(f"Triton does not answer: {said}") from error
        finally:
            connection.close()


@contextlib.contextmanager
def _cut_after(seconds: float, connection: socket.socket) -> Iterator[None]:
    """End `connection` after `seconds`. The timeout of a socket begins again with every byte."""

    def cut() -> None:
        with contextlib.suppress(OSError):
            connection.shutdown(socket.SHUT_RDWR)

    timer = threading.Timer(seconds, cut)
    timer.daemon = True
    timer.start()
    try:
        yield
    finally:
        timer.cancel()


def _reason(answer: str, status: int) -> str:
    """Why Triton refused, from the body of its answer."""
    with contextlib.suppress(ValueError, LookupError, TypeError):
        answer = str(json.loads(answer)["error"])
    return load_failure(answer) or single_line(answer) or f"Triton answers with HTTP status {status}"
