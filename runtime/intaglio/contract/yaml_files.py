"""YAML files as strict, frozen values; what is wrong with one is said with its path and the field's name."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any, TypeVar

import yaml
from pydantic import BaseModel, ConfigDict, ValidationError

from intaglio.errors import ConfigError

__all__ = ["Strict", "read_yaml", "validated"]


class Strict(BaseModel):
    """Fields that are known, and never change."""

    model_config = ConfigDict(frozen=True, extra="forbid")


def read_yaml(path: Path, *, hint: str = "") -> dict[str, Any]:
    """The mapping in `path`.

    Raises:
        ConfigError: a missing file (`hint` says what it would be), or no mapping in YAML.
    """
    try:
        data: Any = yaml.safe_load(path.read_text(encoding="utf-8"))
    except FileNotFoundError as error:
        raise ConfigError(f"{path}: no such file{hint}") from error
    except (OSError, UnicodeDecodeError, yaml.YAMLError) as error:
        raise ConfigError(f"{path}: not readable as YAML: {error}") from error
    if not isinstance(data, dict):
        raise ConfigError(f"{path}: must be a mapping of fields, not {type(data).__name__}")
    return data


_Model = TypeVar("_Model", bound=BaseModel)


def validated(kind: type[_Model], data: Mapping[str, Any], path: Path) -> _Model:
    """What was read from `path` as `kind`, whose validators find the file's folder in their context.

    Raises:
        ConfigError: fields that are unknown, missing or out of range, all of them.
    """
    try:
        return kind.model_validate(data, context={"folder": path.parent})
    except ValidationError as error:
        problems = "; ".join(
            f"{'.'.join(map(str, item['loc'])) or 'file'}: {item['msg']}" for item in error.errors()
        )
        raise ConfigError(f"{path}: {problems}") from error
