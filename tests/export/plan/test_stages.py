"""Stages: done once, redone for a reason, never half-written."""

from __future__ import annotations

import errno
import fcntl
import threading
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from intaglio.errors import BuildError
from intaglio_export.plan.records import read_record
from intaglio_export.plan.stages import Stage, StageStore


def test_a_full_disk_leaves_nothing_behind(tmp_path: Path) -> None:
    store = StageStore(tmp_path / "store")
    stage = Stage("onnx", "thing", {"a": 1}, {})

    def fill(work: Path) -> dict[str, Any]:
        (work / "half").write_bytes(b"half")
        raise OSError(errno.ENOSPC, "No space left on device")

    with pytest.raises(BuildError, match="onnx/thing: the disk is full"), store.locked():
        store.run(stage, fill)
    assert not [path for path in (tmp_path / "store").rglob("*") if path.name == "half"]
    assert store.why(stage) == "not built yet"


def test_an_interrupted_stage_is_cleaned_up_by_the_next_build(tmp_path: Path) -> None:
    left = tmp_path / "store/.unfinished/stage-x/result"
    left.mkdir(parents=True)
    with StageStore(tmp_path / "store").locked():
        assert not left.exists()


def test_two_builds_wait_for_each_other(tmp_path: Path) -> None:
    store = StageStore(tmp_path)
    waited = threading.Event()
    with (tmp_path / ".lock").open("w") as other:
        fcntl.flock(other, fcntl.LOCK_EX)
        threading.Thread(target=lambda: (waited.wait(10), fcntl.flock(other, fcntl.LOCK_UN))).start()
        with store.locked(waiting=waited.set):
            assert waited.is_set()


def test_the_key_knows_every_input(tmp_path: Path) -> None:
    def key(inputs: dict[str, Any], versions: dict[str, str]) -> str:
        return Stage("onnx", "thing", inputs, versions).key

    keys = [
        key({"a": 1}, {"torch": "1"}),
        key({"a": 2}, {"torch": "1"}),
        key({"a": 1}, {"torch": "2"}),
        key({}, {}),
    ]
    assert len(set(keys)) == 4


def test_a_stage_is_done_once_and_again_for_a_reason(tmp_path: Path) -> None:
    store = StageStore(tmp_path)

    def make(work: Path) -> dict[str, Any]:
        (work / "model.onnx").write_bytes(b"graph")
        return {"targets": 3}

    stage = Stage("onnx", "unet", {"weights": "a"}, {"torch": "1"})
    assert store.run(stage, make).reason == "not built yet"
    assert not store.run(stage, make).done
    assert store.run(stage, make, force=True).reason == "forced"
    assert store.why(replace(stage, inputs={"weights": "b"})) == "changed: weights"
    assert store.why(replace(stage, versions={"torch": "2"})) == "changed: torch"
    (store.path(stage) / "model.onnx").write_bytes(b"gra")
    assert store.run(stage, make).reason == "model.onnx has 3 bytes, not 5"
    (store.path(stage) / "model.onnx").unlink()
    assert store.run(stage, make).reason == "model.onnx is missing"
    (store.path(stage) / "record.json").unlink()
    assert store.run(stage, make).reason == "an earlier build did not finish"
    record = read_record(store.path(stage))
    assert record is not None
    assert record.notes == {"targets": 3}
    assert store.expected_seconds(stage, otherwise=9.0) == 0.05
    assert store.expected_seconds(replace(stage, network="other"), otherwise=9.0) == 9.0


def test_names_are_folders() -> None:
    assert Stage("fuse", "", {}, {}).name == "fuse"
    assert Stage("onnx", "controlnet.pose", {}, {}).name == "onnx/controlnet.pose"
