"""What `intaglio serve --production` demands before it starts, and what it closes besides."""

from __future__ import annotations

import ipaddress
import os
import re
from collections.abc import Iterable
from dataclasses import replace
from typing import Final

from intaglio.errors import ConfigError
from intaglio.serving.endpoints import Endpoints
from intaglio.serving.installation import TritonInstallation
from intaglio.serving.server_tls import HOW_TO_MAKE

__all__ = ["OLDEST_IMAGE", "check_triton", "hardened"]

OLDEST_IMAGE: Final = (26, 7)
"""NVIDIA's first image of Triton without the weaknesses that docs/operating.md names."""
_IMAGE_VARIABLE: Final = "NVIDIA_TRITON_SERVER_VERSION"
"""NVIDIA's images set it, such as 26.07."""
_LOOPBACK: Final = "127.0.0.1"


def hardened(endpoints: Endpoints) -> Endpoints:
    """`endpoints` for production: Triton cannot encrypt HTTP and metrics, so they listen on this machine's
    loopback, unless `endpoints` gives them an address of their own: HTTP for a proxy that asks for the
    health, and metrics for a collector.

    Raises:
        ConfigError: gRPC has no certificate, or does not ask clients for one.
    """
    tls = endpoints.tls
    if tls is None or tls.ca is None:
        missing = "--tls-cert, --tls-key and --tls-ca" if tls is None else "--tls-ca"
        raise ConfigError(
            f"--production needs {missing}: gRPC is encrypted, and only clients with a certificate are "
            f"served; {HOW_TO_MAKE}"
        )
    http, metrics = endpoints.http_host or _LOOPBACK, endpoints.metrics_host or _LOOPBACK
    return replace(endpoints, http_host=http, metrics_host=metrics, production=True)


def check_triton(installation: TritonInstallation, hosts: Iterable[str]) -> None:
    """Check that this Triton may be reached by other machines at `hosts`: of gRPC, HTTP and metrics.

    Raises:
        ConfigError: it is an old one with published weaknesses, or does not say how old it is.
    """
    if all(map(_is_loopback, hosts)):
        return
    newest = ".".join(f"{part:02}" for part in OLDEST_IMAGE)
    right = f"serve in NVIDIA's image {newest} or newer, or at {_LOOPBACK} only"
    if installation.origin != "PATH":
        raise ConfigError(
            f"--production: the packaged Triton 2.51 is for this machine's loopback only; {right}"
        )
    image = os.environ.get(_IMAGE_VARIABLE, "")
    found = re.match(r"(\d+)\.(\d+)", image)
    if found is None:
        raise ConfigError(
            f"--production: nothing says how old the Triton on PATH is; {right}, or set {_IMAGE_VARIABLE} to "
            f"the release that it was built from, such as {newest}"
        )
    if (int(found[1]), int(found[2])) < OLDEST_IMAGE:
        raise ConfigError(f"--production: Triton of image {image} has published weaknesses; {right}")


def _is_loopback(host: str) -> bool:
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"
