"""Strict, frozen values, and the YAML files that they are read from.

An error names the file and the field, and says what is wrong with it.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any, Final, TypeVar

import yaml
from pydantic import BaseModel, ConfigDict, StringConstraints, ValidationError, ValidationInfo

from intaglio.errors import ConfigError
from intaglio.validation_errors import Allowed, problems_text

__all__ = ["REGISTRY_ID", "RegistryId", "Sha256", "Strict", "read_yaml", "resolved_path", "validated"]

REGISTRY_ID: Final = r"^[a-z0-9][a-z0-9_-]{0,63}$"
RegistryId = Annotated[
    str,
    StringConstraints(pattern=REGISTRY_ID),
    Allowed("at most 64 lower-case letters, digits, _ and -; the first is a letter or a digit"),
]
"""Id of a LoRA, preset, character, control or pose: a name in a registry, never a path."""
Sha256 = Annotated[
    str, StringConstraints(pattern=r"^[0-9a-f]{64}$"), Allowed("64 hexadecimal digits in lower case")
]
"""A digest, as hexadecimal digits."""


class Strict(BaseModel):
    """A value that never changes and refuses unknown fields."""

    model_config = ConfigDict(frozen=True, extra="forbid")


def resolved_path(path: Path, info: ValidationInfo) -> Path:
    """`path` as an absolute path; a relative one starts at the folder of the file that is validated."""
    folder = (info.context or {}).get("folder")
    path = path.expanduser()
    if folder is None or path.is_absolute():
        return path
    return (Path(folder) / path).resolve()


def read_yaml(path: Path, *, hint: str = "") -> dict[str, Any]:
    """The mapping in `path`.

    Raises:
        ConfigError: the file is missing (`hint` says what it would be), holds no mapping in YAML, or a key in
            it is no text.
    """
    try:
        data: Any = yaml.safe_load(path.read_text(encoding="utf-8"))
    except FileNotFoundError as error:
        raise ConfigError(f"{path}: no such file{hint}") from error
    except (OSError, UnicodeDecodeError, yaml.YAMLError) as error:
        raise ConfigError(f"{path}: not readable as YAML: {error}") from error
    except RecursionError as error:
        raise ConfigError(f"{path}: not readable as YAML: nested too deeply") from error
    # PyYAML makes dates and numbers with Python's own constructors, which refuse the 99th of a month.
    except ValueError as error:
        raise ConfigError(f"{path}: not readable as YAML: {error}; put a text into quotes") from error
    if not isinstance(data, dict):
        raise ConfigError(f"{path}: must be a mapping of fields, not {type(data).__name__}")
    _check_keys(data, path)
    return data


def _check_keys(data: dict[Any, Any], path: Path) -> None:
    """Raise ConfigError at a key that is no text: YAML 1.1 reads `on`, `yes` and `1` as other values."""
    left: list[Any] = [data]
    seen: set[int] = set()  # an alias may lead back to where it is
    while left:
        one = left.pop()
        if id(one) in seen or not isinstance(one, dict | list):
            continue
        seen.add(id(one))
        if isinstance(one, list):
            left += one
            continue
        for key, value in one.items():
            if not isinstance(key, str):
                shown = "true or false (on, off, yes, no)" if isinstance(key, bool) else repr(key)
                raise ConfigError(f"{path}: a key is {shown}; allowed: text, in quotes where YAML needs them")
            left.append(value)


_Model = TypeVar("_Model", bound=BaseModel)


def validated(kind: type[_Model], data: Mapping[str, Any], path: Path) -> _Model:
    """`data`, which was read from `path`, as a value of `kind`.

    Validators find the file's folder in their context.

    Raises:
        ConfigError: says which fields are unknown, missing or out of range, and what is allowed.
    """
    try:
        return kind.model_validate(data, context={"folder": path.parent})
    except ValidationError as error:
        raise ConfigError(f"{path}: {problems_text(error, kind)}") from error
