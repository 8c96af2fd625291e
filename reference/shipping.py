"""What docker/ has twice: keys of configurations, the alerts, and what a proxy has to know of the servers.

A cluster keeps every build in a folder of its own, `LIBRARY/KEY`. The library is the runtime with the version
that constraints.txt puts into the images; the key is the digest of the configuration. An overlay has both in
`build` of its intaglio.yaml and in the name of the job that builds it.
"""

from __future__ import annotations

import re
import shutil
import tempfile
from pathlib import Path
from typing import Final

import yaml

from intaglio.contract.config import Limits, load_deployment
from intaglio.contract.server import Server

__all__ = ["written_files"]

OVERLAYS: Final = "docker/kubernetes/overlays"
RULE: Final = "docker/kubernetes/components/monitoring/prometheus-rule.yaml"
ALERTS: Final = "docker/prometheus/alerts.yaml"
PROXY: Final = "docker/kubernetes/components/proxy/envoy.yaml"
KEY_DIGITS: Final = 12
PACKAGES: Final = {"onnxruntime": "onnxruntime", "tensorrt-rtx": "tensorrt-rtx-cu12"}
"""Runtime -> package of constraints.txt."""
_BUILD: Final = re.compile(r"^build: \.\./build/[a-z0-9.-]+/\w+$", re.MULTILINE)
_JOB: Final = re.compile(r"(?<=value: )intaglio-build-[a-z0-9-]+(?=\})")

_SIZES: Final = re.compile(r"(?<=max_request_bytes: )\d+|(?<=request_body_buffer_limit: )\d+")
_PORT: Final = re.compile(r"(?<=address: intaglio-servers, port_value: )\d+")
_CHECKED_PORT: Final = re.compile(r"(?<=health_check_config: \{port_value: )\d+")
_BESIDE_FILES: Final = 1 << 20
"""Bytes of a request beside its pictures and prompts, at most: more than all other inputs need."""


def written_files(root: Path) -> dict[str, str]:
    """Text of every such file of the checkout `root` as it must be."""
    files = {
        ALERTS: alerts((root / RULE).read_text(encoding="utf-8")),
        PROXY: proxy((root / PROXY).read_text(encoding="utf-8"), Limits(), Server()),
    }
    for folder in sorted((root / OVERLAYS).iterdir()):
        config, names = folder / "intaglio.yaml", folder / "kustomization.yaml"
        text, job = with_key(config.read_text(encoding="utf-8"), root)
        files[str(config.relative_to(root))] = text
        named = _JOB.sub(job, names.read_text(encoding="utf-8"))
        files[str(names.relative_to(root))] = named
    return files


def with_key(text: str, root: Path) -> tuple[str, str]:
    """A deployment's text with its own place in `build`, and the name of the job that builds it.

    Raises:
        ValueError: `build` is not `../build/LIBRARY/KEY`, or `runtime` is `auto`.
    """
    if _BUILD.search(text) is None:
        raise ValueError("build: must be ../build/LIBRARY/KEY; `python -m reference` replaces both")
    with tempfile.TemporaryDirectory() as folder:
        place = shutil.copytree(root / "configs", Path(folder) / "configs") / "intaglio.yaml"
        place.write_text(text, encoding="utf-8")
        deployment = load_deployment(place)
    if deployment.runtime not in PACKAGES:
        raise ValueError(f"runtime: {deployment.runtime}; a cluster needs one of {', '.join(PACKAGES)}")
    key = deployment.digest[:KEY_DIGITS]
    pinned = (root / "constraints.txt").read_text(encoding="utf-8")
    version = re.search(rf"^{PACKAGES[deployment.runtime]}==(\S+)$", pinned, re.MULTILINE)
    assert version is not None, "constraints.txt names every runtime"
    library = f"{deployment.runtime}-{version[1]}"
    written = _BUILD.sub(f"build: ../build/{library}/{key}", text)
    return written, f"intaglio-build-{library.replace('.', '-')}-{key}"


def alerts(rule: str) -> str:
    """The groups of a PrometheusRule as Prometheus itself reads them."""
    groups = yaml.safe_load(rule)["spec"]["groups"]
    body = yaml.safe_dump({"groups": groups}, sort_keys=False, width=110)
    return f"# Written by `python -m reference` from {RULE}.\n{body}"


def proxy(text: str, limits: Limits, server: Server) -> str:
    """Envoy's configuration with the ports of `server`, and the largest message that `limits` allow."""
    largest = limits.input_images * limits.input_bytes + 2 * limits.prompt_bytes + _BESIDE_FILES
    text = _SIZES.sub(str(largest), text)
    text = _PORT.sub(str(server.grpc_port), text)
    return _CHECKED_PORT.sub(str(server.http_port), text)
