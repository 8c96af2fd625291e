"""What docker/ has twice: keys of configurations, and the alerts.

A cluster keeps every build in a folder of its own, `LIBRARY/KEY`. The key is the digest of the configuration,
so both follow an overlay's intaglio.yaml: its own `build`, and the name of the job that builds it.
"""

from __future__ import annotations

import re
import shutil
import tempfile
from pathlib import Path
from typing import Final

import yaml

from intaglio.contract.config import load_deployment

__all__ = ["written_files"]

OVERLAYS: Final = "docker/kubernetes/overlays"
RULE: Final = "docker/kubernetes/components/monitoring/prometheus-rule.yaml"
ALERTS: Final = "docker/prometheus/alerts.yaml"
KEY_DIGITS: Final = 12
_BUILD: Final = re.compile(r"^build: \.\./build/(?P<library>[a-z0-9.-]+)/(?P<key>\w+)$", re.MULTILINE)
_JOB: Final = re.compile(r"(?<=value: )intaglio-build-[a-z0-9-]+(?=\})")


def written_files(root: Path) -> dict[str, str]:
    """Text of every such file of the checkout `root` as it must be."""
    files = {ALERTS: alerts((root / RULE).read_text(encoding="utf-8"))}
    for folder in sorted((root / OVERLAYS).iterdir()):
        config, names = folder / "intaglio.yaml", folder / "kustomization.yaml"
        text, job = with_key(config.read_text(encoding="utf-8"), root / "configs")
        files[str(config.relative_to(root))] = text
        named = _JOB.sub(job, names.read_text(encoding="utf-8"))
        files[str(names.relative_to(root))] = named
    return files


def with_key(text: str, configs: Path) -> tuple[str, str]:
    """A deployment's text with its own key in `build`, and the name of the job that builds it.

    Raises:
        ValueError: `build` is not `../build/LIBRARY/KEY`.
    """
    found = _BUILD.search(text)
    if found is None:
        raise ValueError("build: must be ../build/LIBRARY/KEY; `python -m reference` replaces the key")
    with tempfile.TemporaryDirectory() as folder:
        place = shutil.copytree(configs, Path(folder) / "configs") / "intaglio.yaml"
        place.write_text(text, encoding="utf-8")
        key = load_deployment(place).digest[:KEY_DIGITS]
    library = found["library"]
    written = _BUILD.sub(f"build: ../build/{library}/{key}", text)
    return written, f"intaglio-build-{library.replace('.', '-')}-{key}"


def alerts(rule: str) -> str:
    """The groups of a PrometheusRule as Prometheus itself reads them."""
    groups = yaml.safe_load(rule)["spec"]["groups"]
    body = yaml.safe_dump({"groups": groups}, sort_keys=False, width=110)
    return f"# Written by `python -m reference` from {RULE}.\n{body}"
