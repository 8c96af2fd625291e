"""The record of one finished stage: `record.json` beside the files it made.

A record is written last, so a folder that has one is whole.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final, Literal

from pydantic import Field, ValidationError

from intaglio.builds.file_checks import FileDigest
from intaglio.builds.manifest import write_json
from intaglio.contract.yaml_files import Sha256, Strict

__all__ = ["RECORD_NAME", "StageRecord", "changed_inputs", "read_record", "write_record"]

RECORD_NAME: Final = "record.json"


class StageRecord(Strict):
    """What one stage made, from what, with what. Paths are relative to the record's folder."""

    schema_version: Literal[1] = 1
    stage: str
    key: Sha256
    """Content key of everything that the result depends on."""
    inputs: dict[str, Any]
    """The values behind the key, so that a build can say which of them changed."""
    versions: dict[str, str]
    files: dict[str, FileDigest]
    seconds: float = 0.0
    notes: dict[str, Any] = Field(default_factory=dict)
    """Facts that do not identify the result: verification errors, plan sizes, fused components."""


def write_record(folder: Path, record: StageRecord) -> None:
    """Write `folder/record.json` atomically."""
    write_json(folder / RECORD_NAME, record.model_dump(mode="json"))


def read_record(folder: Path) -> StageRecord | None:
    """The folder's record, or None where there is no usable one: the stage is then done again."""
    try:
        return StageRecord.model_validate_json((folder / RECORD_NAME).read_bytes())
    except (OSError, ValidationError):
        return None


def changed_inputs(record: StageRecord, inputs: Mapping[str, Any]) -> str:
    """Which inputs are not those of `record`, for people."""
    names = sorted({*record.inputs, *inputs})
    changed = [name for name in names if record.inputs.get(name) != inputs.get(name)]
    return f"changed: {', '.join(changed) or 'content'}"
