"""Which build a Triton model serves.

The build is named by the environment's INTAGLIO_BUILD, otherwise by the parameter `build` of the model's
configuration (relative to the model's own folder). A parameter `build_key` must equal the build's key. A
version folder that holds a manifest serves that build: this is how `intaglio serve` loads a new build beside
the old one.
"""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Final

from intaglio.builds.manifest import MANIFEST_NAME, BuildManifest, read_manifest
from intaglio.errors import ConfigError, EngineMismatch

__all__ = [
    "BUILD_KEY_PARAMETER",
    "BUILD_PARAMETER",
    "BUILD_VARIABLE",
    "GPUS_PARAMETER",
    "HANG_SECONDS_PARAMETER",
    "INSTANCES_PARAMETER",
    "model_parameters",
    "read_served_build",
]

BUILD_VARIABLE: Final = "INTAGLIO_BUILD"
BUILD_PARAMETER: Final = "build"
BUILD_KEY_PARAMETER: Final = "build_key"
GPUS_PARAMETER: Final = "gpus"
"""Of `diffuse`: the cards that draw, with commas between them, or `all`; absent where one draws."""
INSTANCES_PARAMETER: Final = "instances"
"""Of `diffuse`: how many processes draw on the CPU; absent where one draws."""
HANG_SECONDS_PARAMETER: Final = "hang_seconds"
"""Of `diffuse`: `server.hang_seconds`; absent where one draws, or where the default holds."""


def read_served_build(args: Mapping[str, str]) -> tuple[BuildManifest, Path]:
    """Manifest and folder of the build; `args` are those of Triton's `initialize`.

    Raises:
        ConfigError: nothing names a build.
        EngineMismatch: there is no build in that folder, or another one than the repository was written for.
    """
    parameters = model_parameters(args)
    named = os.environ.get(BUILD_VARIABLE) or parameters.get(BUILD_PARAMETER)
    if not named:
        raise ConfigError(
            f"no build is named; set {BUILD_VARIABLE}, or {BUILD_PARAMETER!r} in config.pbtxt, "
            "to a folder that `intaglio build` made"
        )
    model = Path(args["model_repository"])
    folder = (model / named).resolve()
    version = model / args.get("model_version", "1")
    has_manifest = (version / MANIFEST_NAME).is_file()
    manifest = read_manifest(version if has_manifest else folder)
    key = parameters.get(BUILD_KEY_PARAMETER)
    if key and key != manifest.key:
        raise EngineMismatch(
            f"the model repository was written for build {key[:12]}, {folder} holds {manifest.key[:12]}",
            command=manifest.rebuild,
        )
    return manifest, folder


def model_parameters(args: Mapping[str, str]) -> dict[str, str]:
    """The parameters of the model's configuration; `args` are those of Triton's `initialize`."""
    found = json.loads(args["model_config"]).get("parameters", {})
    return {name: value.get("string_value", "") for name, value in found.items()}
