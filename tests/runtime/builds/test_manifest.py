"""Manifests and records: written, read again, refused."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from intaglio.builds.manifest import (
    read_manifest,
    write_json,
    write_manifest,
)
from intaglio.errors import EngineMismatch


def test_manifest_round_trip_and_refusals(tiny: Any, tmp_path: Path) -> None:
    with pytest.raises(EngineMismatch, match=r"No such file.*rebuild with: intaglio build configs/x.yaml"):
        read_manifest(tmp_path, command="intaglio build configs/x.yaml")
    write_manifest(tmp_path, tiny.manifest)
    assert read_manifest(tmp_path) == tiny.manifest
    data = json.loads((tmp_path / "manifest.json").read_text())
    write_json(tmp_path / "manifest.json", data | {"schema_version": 2})
    with pytest.raises(
        EngineMismatch, match=r"schema_version.*rebuild with: intaglio build configs/tiny.yaml"
    ):
        read_manifest(tmp_path)
    (tmp_path / "manifest.json").write_text("{")
    with pytest.raises(EngineMismatch, match="is not JSON"):
        read_manifest(tmp_path)
    assert [path.name for path in tmp_path.iterdir()] == ["manifest.json"]


def test_failed_write_leaves_the_old_file(tmp_path: Path) -> None:
    write_json(tmp_path / "a.json", {"a": 1})
    with pytest.raises(ValueError, match="Out of range"):
        write_json(tmp_path / "a.json", {"a": float("nan")})
    assert json.loads((tmp_path / "a.json").read_text()) == {"a": 1}
    assert len(list(tmp_path.iterdir())) == 1
