"""The record of a stage: written whole, read back, and what changed since."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from intaglio_export.plan.records import (
    RECORD_NAME,
    StageRecord,
    changed_inputs,
    read_record,
    write_record,
)


def record(**inputs: Any) -> StageRecord:
    return StageRecord(stage="onnx/unet", key="a" * 64, inputs=inputs, versions={}, files={}, notes={"n": 1})


def test_a_record_is_read_as_it_was_written(tmp_path: Path) -> None:
    write_record(tmp_path, record(a=1))
    assert read_record(tmp_path) == record(a=1)
    assert [path.name for path in tmp_path.iterdir()] == [RECORD_NAME]


@pytest.mark.parametrize("text", ["", "{", '{"stage": "onnx/unet"}', '{"unknown": 1}'])
def test_a_damaged_record_is_none(tmp_path: Path, text: str) -> None:
    assert read_record(tmp_path) is None
    (tmp_path / RECORD_NAME).write_text(text)
    assert read_record(tmp_path) is None


def test_what_changed_is_named() -> None:
    assert changed_inputs(record(a=1, b=2), {"a": 1, "b": 3, "c": 4}) == "changed: b, c"
    assert changed_inputs(record(a=1), {}) == "changed: a"
    assert changed_inputs(record(a=1), {"a": 1}) == "changed: content"
