"""`python -m intaglio.serving.health [HOST:PORT] [live]`: 0 where Triton there serves pictures, else 1.

Without an address it asks the running server of this user, at the port that its configuration or its command
line has. With `live` it is 0 where Triton answers at all. This is the health check of the container images,
and the probes of pods in production, where only the pod itself reaches HTTP. So it imports nothing that takes
long.
"""

from __future__ import annotations

import http.client
import sys
from collections.abc import Sequence
from typing import Final

from intaglio.serving.workspace import http_urls

__all__ = ["LIVE_PATH", "PATH", "problem_of"]

PATH: Final = "/v2/models/sdxl/versions/1/ready"
"""200 from the moment that the build is loaded until the server is told to stop. Without the version it would
stay 200 then: the model that refuses requests is loaded, too.
"""
LIVE_PATH: Final = "/v2/health/live"
"""200 while Triton answers, also while it loads or stops."""
_LIVE: Final = "live"
_SECONDS: Final = 4.0


def problem_of(address: str, *, path: str = PATH) -> str | None:
    """Why the server at `address` (`HOST:PORT` of HTTP) does not answer `path` with 200, or None."""
    connection = http.client.HTTPConnection(address, timeout=_SECONDS)
    try:
        connection.request("GET", path)
        status = connection.getresponse().status
    except (OSError, http.client.HTTPException) as error:
        return f"{address} does not answer: {error}"
    finally:
        connection.close()
    return None if status == http.client.OK else f"{address}{path} answers {status}; 200 would be ready"


def main(words: Sequence[str]) -> int:
    """The exit code."""
    live = _LIVE in words
    addresses = [word for word in words if word != _LIVE] or http_urls()
    if len(addresses) == 1:
        problem = problem_of(addresses[0], path=LIVE_PATH if live else PATH)
    else:
        running = ", ".join(addresses) or "none"
        problem = f"running servers of this user: {running}; allowed: one, or its HOST:PORT as an argument"
    print(problem or ("live" if live else "ready"))
    return int(problem is not None)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
