"""`python -m intaglio.serving.health [HOST:PORT]`: exit code 0 where Triton there serves pictures, else 1.

It is the health check of the container images, so it imports nothing that takes long.
"""

from __future__ import annotations

import http.client
import sys
from typing import Final

__all__ = ["PATH", "problem_of"]

PATH: Final = "/v2/models/sdxl/versions/1/ready"
"""200 from the moment that the build is loaded until the server is told to stop. Without the version it would
stay 200 then: the model that refuses requests is loaded, too.
"""
_SECONDS: Final = 4.0


def problem_of(address: str) -> str | None:
    """Why the server at `address`, `HOST:PORT` of HTTP, serves no pictures; None where it does."""
    connection = http.client.HTTPConnection(address, timeout=_SECONDS)
    try:
        connection.request("GET", PATH)
        status = connection.getresponse().status
    except (OSError, http.client.HTTPException) as error:
        return f"{address} does not answer: {error}"
    finally:
        connection.close()
    return None if status == http.client.OK else f"{address}{PATH} answers {status}; 200 would be ready"


if __name__ == "__main__":
    problem = problem_of(sys.argv[1] if len(sys.argv) > 1 else "127.0.0.1:8000")
    print(problem or "ready")
    sys.exit(problem is not None)
