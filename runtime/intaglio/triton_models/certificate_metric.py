"""The Prometheus metric of the certificate that gRPC shows, on Triton's metrics port.

Triton reads the file when it starts and never again. So `intaglio serve` says then when the certificate
expires: a file that was renewed since changes nothing, and neither does it change the metric.
"""

from __future__ import annotations

import math
import os
import time
from collections.abc import Mapping
from typing import Any, Final

from intaglio.errors import ConfigError
from intaglio.triton_models.metrics import MetricGroup, MetricSpec, When

__all__ = ["CERTIFICATE_EXPIRES", "EXPIRES_VARIABLE", "CertificateMetric", "certificate_expiry"]

EXPIRES_VARIABLE: Final = "INTAGLIO_CERTIFICATE_EXPIRES"
"""When the certificate expires, in seconds since the epoch; absent without TLS."""
CERTIFICATE_EXPIRES: Final = MetricSpec(
    "certificate_expires_seconds",
    "gauge",
    "seconds until the certificate that gRPC shows expires, to the minute, and below 0 afterwards",
    when=When.TLS,
)
_EVERY_SECONDS: Final = 60.0


def certificate_expiry(environment: Mapping[str, str] = os.environ) -> float | None:
    """When the server's certificate expires, in seconds since the epoch; None without TLS.

    Raises:
        ConfigError: the variable has a value that is no moment.
    """
    text = environment.get(EXPIRES_VARIABLE)
    if not text:
        return None
    try:
        moment = float(text)
    except ValueError:
        moment = math.nan
    if not math.isfinite(moment):
        raise ConfigError(f"{EXPIRES_VARIABLE}: {text!r}; allowed: seconds since the epoch")
    return moment


class CertificateMetric:
    """Reports it; `pb` is `triton_python_backend_utils`."""

    def __init__(self, pb: Any, expires: float) -> None:
        self._metrics = MetricGroup(pb, [CERTIFICATE_EXPIRES])
        self._expires = expires

    def report(self) -> None:
        """The seconds from now. Each change is a message to Triton's process: one a minute is enough."""
        left = self._expires - time.time()
        self._metrics.set(CERTIFICATE_EXPIRES.name, math.floor(left / _EVERY_SECONDS) * _EVERY_SECONDS)
