"""`python -m intaglio.serving.health [HOST:PORT] [live]`: 0 where Triton there serves pictures, else 1.

Without an address it asks the running servers of this user, each at the port that its configuration or its
command line has. One that answers is enough: a demo that somebody starts in a pod must not have the pod's
server killed. Where `intaglio` serves nothing, it asks 127.0.0.1:8000, the port of a Triton alone.

With `live` it is 0 where Triton answers at all. This is the health check of the container images, and the
probes of pods in production, where only the pod itself reaches HTTP. So it imports nothing that takes long.
"""

from __future__ import annotations

import http.client
import sys
import threading
from collections.abc import Sequence
from queue import SimpleQueue
from typing import Final

from intaglio.serving.workspace import http_urls

__all__ = ["LIVE_PATH", "PATH", "problem_of", "problem_of_any"]

PATH: Final = "/v2/models/sdxl/versions/1/ready"
"""200 from the moment that the build is loaded until the server is told to stop. Without the version it would
stay 200 then: the model that refuses requests is loaded, too.
"""
LIVE_PATH: Final = "/v2/health/live"
"""200 while Triton answers, also while it loads or stops."""
_TRITON_ALONE: Final = "127.0.0.1:8000"
"""HTTP of `tritonserver` without options. It has no workspace that says where it answers."""
_LIVE: Final = "live"
_SECONDS: Final = 4.0


def problem_of(address: str, *, path: str = PATH) -> str | None:
    """Why the server at `address` (`HOST:PORT` of HTTP) does not answer `path` with 200, or None."""
    try:
        connection = http.client.HTTPConnection(address, timeout=_SECONDS)
    except http.client.InvalidURL as error:
        return f"{address}: {error}; allowed: HOST:PORT"
    try:
        connection.request("GET", path)
        status = connection.getresponse().status
    except (OSError, http.client.HTTPException) as error:
        return f"{address} does not answer: {error}"
    finally:
        connection.close()
    return None if status == http.client.OK else f"{address}{path} answers {status}; 200 would be ready"


def problem_of_any(addresses: Sequence[str], *, path: str = PATH) -> str | None:
    """Why no server at `addresses` answers `path` with 200; None as soon as one does.

    All are asked at the same time, so that one that hangs does not use up the time of the others.
    """
    answers: SimpleQueue[str | None] = SimpleQueue()

    def ask(address: str) -> None:
        problem: str | None = f"{address} cannot be asked"
        try:
            problem = problem_of(address, path=path)
        finally:
            answers.put(problem)

    for address in addresses:
        threading.Thread(target=ask, args=(address,), daemon=True).start()
    problems = []
    for _ in addresses:
        if (problem := answers.get()) is None:
            return None
        problems.append(problem)
    return "; ".join(problems)


def main(words: Sequence[str]) -> int:
    """The exit code."""
    live = _LIVE in words
    addresses = [word for word in words if word != _LIVE] or http_urls() or [_TRITON_ALONE]
    problem = problem_of_any(addresses, path=LIVE_PATH if live else PATH)
    print(problem or ("live" if live else "ready"))
    return int(problem is not None)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
