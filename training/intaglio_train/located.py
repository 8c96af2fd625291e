"""Paths in a configuration file: they are relative to that file, wherever the command runs."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Annotated

from pydantic import AfterValidator, ValidationInfo

__all__ = ["LocatedPath", "Model", "located"]

_SUFFIXES = (".safetensors", ".ckpt")
_PATH_STARTS = (".", "/", "~")


def located(path: Path, folder: Path) -> Path:
    """`path`, which is relative to `folder`, as seen from the working directory: absolute unless it lies in
    there.
    """
    absolute = Path(os.path.normpath(folder.resolve() / path.expanduser()))
    here = Path.cwd()
    return absolute.relative_to(here) if absolute.is_relative_to(here) else absolute


def _located_path(path: Path, info: ValidationInfo) -> Path:
    folder = (info.context or {}).get("folder")
    return path if folder is None else located(path, folder)


def _located_model(name: str, info: ValidationInfo) -> str:
    """A name such as `owner/name` is a folder where there is one, and otherwise an id of the hub."""
    folder = (info.context or {}).get("folder")
    if folder is None:
        return name
    path = located(Path(name), folder)
    is_path = name.startswith(_PATH_STARTS) or name.endswith(_SUFFIXES) or name.count("/") > 1
    if not is_path and not path.exists():
        return name
    # Without the dot, a missing folder would be taken for an id of the hub.
    return str(path) if path.is_absolute() else f"./{path}"


LocatedPath = Annotated[Path, AfterValidator(_located_path)]
Model = Annotated[str, AfterValidator(_located_model)]
"""A diffusers folder, a single file or an id of the hub."""
