"""The image's own health check, run in a container as Docker runs it."""

from __future__ import annotations

import subprocess
import time
from typing import Final

from .containers import Container

__all__ = ["check_health", "wait_until_healthy"]

_START_SECONDS: Final = 120


def check_health(container: Container) -> subprocess.CompletedProcess[str]:
    """One run of `HEALTHCHECK`."""
    kind, *command = container.image.config["Healthcheck"]["Test"]
    assert kind == "CMD"
    return container.run(*command)


def wait_until_healthy(container: Container) -> int:
    """Returns once the health check passes; how often it failed before."""
    deadline, failed = time.monotonic() + _START_SECONDS, 0
    while check_health(container).returncode != 0:
        failed += 1
        assert container.process.poll() is None, container.output
        assert time.monotonic() < deadline, container.output
        time.sleep(0.5)
    return failed
