"""What the processes of a server are told about logs and traces: variables of their environment.

`intaglio serve` sets them from `server` of the deployment. Whoever runs `tritonserver` alone sets them.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final, Self, cast, get_args
from urllib.parse import urlsplit

from intaglio.errors import ConfigError
from intaglio.telemetry.event_log import Level, LogFormat

__all__ = ["FORMAT_VARIABLE", "LEVEL_VARIABLE", "TRACES_VARIABLE", "TelemetrySettings", "checked_traces"]

FORMAT_VARIABLE: Final = "INTAGLIO_LOG_FORMAT"
LEVEL_VARIABLE: Final = "INTAGLIO_LOG_LEVEL"
TRACES_VARIABLE: Final = "INTAGLIO_TRACES"


def checked_traces(url: str) -> str:
    """`url` itself, which is where a collector takes traces.

    Raises:
        ValueError: it is something else.
    """
    parts = urlsplit(url)
    is_whole = parts.scheme in ("http", "https") and bool(parts.hostname) and len(parts.path) > 1
    if not is_whole or not url.isprintable() or {",", " "} & set(url):
        allowed = "the whole address of OTLP over HTTP, such as http://collector:4318/v1/traces"
        raise ValueError(f"{url!r} is no collector; allowed: {allowed}")
    if parts.username is not None:
        # Triton gets the address on its command line, which every user of the machine can read.
        raise ValueError("it has a user name or a password; allowed: an address without them")
    return url


@dataclass(frozen=True, slots=True, kw_only=True)
class TelemetrySettings:
    """How a server logs, and where its traces go."""

    format: LogFormat = "text"
    level: Level = "info"
    traces: str | None = None
    """Where a collector takes OTLP over HTTP; None: there are no traces."""

    @classmethod
    def of_environment(cls, environment: Mapping[str, str] = os.environ) -> Self:
        """Those of this process.

        Raises:
            ConfigError: a variable has a value that means nothing.
        """
        traces = environment.get(TRACES_VARIABLE) or None
        try:
            return cls(
                format=cast(
                    LogFormat, _choice(environment, FORMAT_VARIABLE, get_args(LogFormat), cls().format)
                ),
                level=cast(Level, _choice(environment, LEVEL_VARIABLE, get_args(Level), cls().level)),
                traces=None if traces is None else checked_traces(traces),
            )
        except ValueError as error:
            raise ConfigError(f"{TRACES_VARIABLE}: {error}") from error

    @property
    def environment(self) -> dict[str, str]:
        """The variables that tell another process the same."""
        found: dict[str, str] = {FORMAT_VARIABLE: self.format, LEVEL_VARIABLE: self.level}
        return found if self.traces is None else {**found, TRACES_VARIABLE: self.traces}


def _choice(environment: Mapping[str, str], name: str, choices: tuple[str, ...], default: str) -> str:
    value = environment.get(name) or default
    if value not in choices:
        raise ConfigError(f"{name}: {value!r}; allowed: {', '.join(choices)}")
    return value
