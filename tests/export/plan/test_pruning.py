"""Results that no build needs any more leave the store; nothing else does."""

from __future__ import annotations

import errno
import os
import shutil
from pathlib import Path
from typing import Any

import pytest

from intaglio.builds.manifest import MANIFEST_NAME, write_manifest
from intaglio_export.plan import pruning
from intaglio_export.plan.pruning import Pruned, prune
from intaglio_export.plan.stages import Stage, StageStore

from ...runtime.serving.conftest import make_manifest

SIZE = 1000


@pytest.fixture
def store(tmp_path: Path) -> StageStore:
    return StageStore(tmp_path / "build" / ".stages")


def made(store: StageStore, *values: int, kind: Any = "onnx", network: str = "unet") -> list[Stage]:
    """Results of a stage with these inputs, the oldest first."""

    def fill(work: Path) -> dict[str, Any]:
        (work / "model").write_bytes(bytes(SIZE))
        return {}

    stages = []
    for age, value in enumerate(values):
        stage = Stage(kind, network, {"input": value}, {})
        store.run(stage, fill)
        os.utime(store.path(stage) / "record.json", (age, age))
        stages.append(stage)
    return stages


def build(folder: Path, *stages: Stage) -> Path:
    """A build whose manifest names `stages`."""
    named = {stage.name: stage.key for stage in stages}
    write_manifest(folder, make_manifest("1" * 64).model_copy(update={"stages": named}))
    return folder


def pruned(store: StageStore, folder: Path, *, keep: int | None = 1) -> Pruned:
    with store.locked():
        return prune(store, folder, keep=keep)


def test_what_no_build_names_goes_but_for_the_newest(store: StageStore) -> None:
    stages = made(store, 1, 2, 3, 4, 5)
    fused = made(store, 1, 2, kind="fuse", network="")
    mine = build(store.folder.parent / "mine", stages[0], fused[1])
    build(store.folder.parent / "another", stages[1])
    found = pruned(store, mine, keep=2)
    assert [store.path(stage).exists() for stage in stages] == [True, True, False, True, True]
    assert all(store.path(stage).exists() for stage in fused)
    assert found.results == 1
    assert SIZE < found.bytes < SIZE + 1000, "the model and its record"
    assert pruned(store, mine, keep=2) == Pruned()
    assert pruned(store, mine, keep=1).results == 1, "no build names the one of fuse, but it is its newest"


def test_nothing_goes_where_everything_is_kept(store: StageStore) -> None:
    stages = made(store, 1, 2, 3)
    assert pruned(store, build(store.folder.parent / "mine"), keep=None) == Pruned()
    assert all(store.path(stage).exists() for stage in stages)


def test_files_that_a_build_links_to_free_nothing(store: StageStore) -> None:
    old, _ = made(store, 1, 2)
    mine = build(store.folder.parent / "mine")
    os.link(store.path(old) / "model", mine / "engine")
    found = pruned(store, mine)
    assert found.results == 1
    assert found.bytes < SIZE
    assert (mine / "engine").stat().st_size == SIZE


def test_builds_in_other_folders_that_share_the_store_count(store: StageStore, tmp_path: Path) -> None:
    first, second, third = made(store, 1, 2, 3)
    (tmp_path / "other").mkdir()
    (tmp_path / "other" / ".stages").symlink_to(store.folder)
    shared = StageStore(tmp_path / "other" / ".stages")
    mine = build(store.folder.parent / "mine", second)
    theirs = build(tmp_path / "other" / "theirs", first)
    assert pruned(shared, theirs, keep=None) == Pruned()
    assert pruned(store, mine) == Pruned()
    copy = StageStore(tmp_path / "copy" / ".stages")
    shutil.copytree(store.folder, copy.folder)
    assert pruned(copy, build(tmp_path / "copy" / "mine", second)).results == 1, "theirs is not of the copy"
    (theirs / MANIFEST_NAME).unlink()
    assert pruned(shared, build(tmp_path / "other" / "more")).results == 1
    assert [store.path(stage).exists() for stage in (first, second, third)] == [False, True, True]


def test_a_manifest_that_cannot_be_read_protects_everything(store: StageStore) -> None:
    stages = made(store, 1, 2)
    unreadable = store.folder.parent / "old"
    unreadable.mkdir()
    (unreadable / MANIFEST_NAME).write_text("{}")
    found = pruned(store, build(store.folder.parent / "mine"))
    assert str(found.prevented).startswith("nothing was pruned, since it is not known what a build needs: ")
    assert str(unreadable) in str(found.prevented)
    assert all(store.path(stage).exists() for stage in stages)


def test_an_error_of_the_disk_does_not_end_a_complete_build(
    store: StageStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*_: Any) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    made(store, 1, 2, 3)
    mine = build(store.folder.parent / "mine")
    monkeypatch.setattr(store, "remove", full)
    found = pruned(store, mine)
    assert str(found.prevented).startswith(f"earlier results were not removed: {store.folder}: ")
    monkeypatch.setattr(pruning, "write_json", full)
    assert pruned(store, mine, keep=None).prevented is not None


def test_digests_of_what_is_gone_are_forgotten(store: StageStore) -> None:
    made(store, 1, 2)
    pruned(store, build(store.folder.parent / "mine"))
    assert (store.folder / "digests.json").read_text().count('"sha256"') == 1
