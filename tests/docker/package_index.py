"""Where pip finds packages on this machine, for a build that must not keep it.

The build gets a pip.conf as a secret, and folders as volumes. Neither becomes a part of an image.
"""

from __future__ import annotations

import ast
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Final
from urllib.parse import urlsplit

from pip._internal.models.index import PyPI

__all__ = ["PackageIndex", "package_index"]

_KEYS: Final = ("index-url", "extra-index-url", "find-links", "trusted-host", "default-timeout", "timeout")
_CERTIFICATES: Final = "/run/pip-certificates"


@dataclass(frozen=True, slots=True)
class PackageIndex:
    """What a build needs."""

    pip_conf: str
    volumes: tuple[tuple[Path, str], ...]
    """Folder here, and where the build sees it."""
    secrets: frozenset[str]
    """Hosts and folders that no image may name."""


def package_index() -> PackageIndex:
    """The settings of this machine's pip."""
    settings = _settings()
    lines, volumes, secrets = ["[global]"], [], set()
    for key in _KEYS:
        if not (value := settings.get(key)):
            continue
        lines.append(f"{key.removeprefix('default-')} = {value}")
        for word in value.split():
            address = urlsplit(word)
            folder = Path(address.path if address.scheme == "file" else word)
            if folder.is_absolute() and folder.is_dir():
                # The pages of an index in a folder link to files beside them.
                mounted = folder.parent if key.endswith("index-url") else folder
                volumes.append((mounted, str(mounted)))
                secrets.add(str(folder))
            elif address.hostname not in (None, PyPI.netloc, "localhost"):
                secrets.add(str(address.hostname))
    if certificate := settings.get("cert"):
        path = Path(certificate).resolve()
        volumes.append((path.parent, _CERTIFICATES))
        lines.append(f"cert = {_CERTIFICATES}/{path.name}")
    return PackageIndex("\n".join(lines) + "\n", tuple(volumes), frozenset(secrets))


def _settings() -> dict[str, str]:
    """Key -> value. Variables of the environment go before files, as pip has it."""
    command = [sys.executable, "-m", "pip", "config", "list"]
    lines = subprocess.run(command, capture_output=True, text=True, check=True).stdout.splitlines()
    found: dict[str, str] = {}
    for line in sorted(lines, key=lambda line: line.startswith(":env:")):
        name, _, value = line.partition("=")
        found[name.rpartition(".")[2]] = str(ast.literal_eval(value))
    return found
