"""Triton over HTTP: its health, and what an administrator may do."""

from __future__ import annotations

import contextlib
import http.client
import json
import urllib.error
import urllib.request
from collections.abc import Collection
from typing import Final

from intaglio.errors import Unavailable, single_line
from intaglio.serving.arguments import SECRET_HEADER
from intaglio.serving.triton_log import load_failure

__all__ = ["Administration"]

_OPENER: Final = urllib.request.build_opener(urllib.request.ProxyHandler({}))
"""A request to this machine never goes through a proxy."""


class Administration:
    """The requests to one Triton at `url` (`host:port` of HTTP)."""

    def __init__(self, url: str, *, secret: str, load_seconds: float) -> None:
        self._url = url
        self._secret = secret
        self._load_seconds = load_seconds

    def is_ready(self) -> bool:
        """Whether every model is loaded."""
        return self._answers("v2/health/ready", timeout=1.0)

    def is_live(self) -> bool:
        """Whether the server answers its liveness probe within two seconds."""
        return self._answers("v2/health/live", timeout=2.0)

    def has_loaded(self, version: int, models: Collection[str]) -> bool:
        """Whether `version` of any of `models` is loaded, or still finishes its requests.

        Raises:
            Unavailable: Triton does not answer.
        """
        index: list[dict[str, str]] = json.loads(self._post("index"))
        for item in index:
            same = item["name"] in models and item.get("version") == str(version)
            if same and item.get("state") != "UNAVAILABLE":
                return True
        return False

    def load_model(self, model: str) -> None:
        """Load of `model` what the repository says, and unload the rest; returns when that is done.

        Raises:
            Unavailable: it cannot be loaded, with the reason, and what was loaded before still is. Or Triton
                does not answer.
        """
        self._post(f"models/{model}/load")

    def _post(self, what: str) -> bytes:
        request = urllib.request.Request(
            f"http://{self._url}/v2/repository/{what}",
            data=b"{}",
            headers={SECRET_HEADER: self._secret},
            method="POST",
        )
        try:
            with _OPENER.open(request, timeout=self._load_seconds) as response:
                return bytes(response.read())
        except urllib.error.HTTPError as error:
            raise Unavailable(_reason(error.read().decode("utf-8", "replace"))) from error
        except (OSError, http.client.HTTPException) as error:
            raise Unavailable(f"Triton does not answer: {error}") from error

    def _answers(self, path: str, *, timeout: float) -> bool:
        try:
            with _OPENER.open(f"http://{self._url}/{path}", timeout=timeout) as response:
                return bool(response.status == 200)
        except OSError:
            return False


def _reason(answer: str) -> str:
    """Why Triton refused, from the body of its answer."""
    with contextlib.suppress(ValueError, KeyError, TypeError):
        answer = json.loads(answer)["error"]
    return load_failure(answer) or single_line(answer)
