"""Digests that are remembered, and what they say of files that were changed."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

from intaglio.builds.file_checks import file_digest
from intaglio.errors import BuildError
from intaglio_export.plan.digests import DigestCache, check_safetensors


def test_a_digest_is_remembered_by_size_and_time(tmp_path: Path) -> None:
    path = tmp_path / "file"
    path.write_bytes(b"before")
    first = DigestCache(tmp_path / "digests.json")
    before = first.digest(path)
    assert before == file_digest(path)
    first.save()
    stamp = path.stat().st_mtime_ns
    path.write_bytes(b"after!")
    os.utime(path, ns=(stamp, stamp))
    again = DigestCache(tmp_path / "digests.json")
    assert again.digest(path) == before, "not read again: size and time are the same"
    os.utime(path, ns=(stamp, stamp + 1))
    assert again.digest(path) == file_digest(path) != before


def test_a_damaged_cache_is_forgotten(tmp_path: Path) -> None:
    (tmp_path / "digests.json").write_text("{")
    (tmp_path / "file").write_bytes(b"x")
    assert DigestCache(tmp_path / "digests.json").digest(tmp_path / "file").size == 1


def test_damage_is_named(tmp_path: Path) -> None:
    path = tmp_path / "engine"
    path.write_bytes(b"engine")
    files = {"engine": file_digest(path)}
    cache = DigestCache(tmp_path / "digests.json")
    assert cache.damage(tmp_path, files) is None
    path.write_bytes(b"eNgine")
    os.utime(path, ns=(1, 1))
    assert cache.damage(tmp_path, files) == "engine was changed after it was built"
    path.write_bytes(b"eng")
    assert cache.damage(tmp_path, files) == "engine has 3 bytes, not 6"
    path.unlink()
    assert cache.damage(tmp_path, files) == "engine is missing"


def test_one_digest_of_several_files_knows_names_and_content(tmp_path: Path) -> None:
    cache = DigestCache(tmp_path / "digests.json")
    paths = [tmp_path / name for name in ("a", "b")]
    for path in paths:
        path.write_bytes(path.name.encode())
    both = cache.combined(paths, root=tmp_path)
    assert both == cache.combined(paths[::-1], root=tmp_path)
    assert both != cache.combined(paths[:1], root=tmp_path)
    paths[1].rename(tmp_path / "c")
    assert both != cache.combined([paths[0], tmp_path / "c"], root=tmp_path)


def test_files_that_are_not_safetensors(tmp_path: Path) -> None:
    path = tmp_path / "x.safetensors"
    save_file({"weight": torch.zeros(8)}, path)
    check_safetensors(path)
    whole = path.read_bytes()
    for data, message in (
        (whole[:-1], "its header says"),
        (whole + b"x", "its header says"),
        (b"<html>not found</html>", "not a safetensors file"),
        (b"", "not a safetensors file"),
        (whole[:8] + b"}" + whole[9:], "damaged safetensors header"),
    ):
        path.write_bytes(data)
        with pytest.raises(BuildError, match=message):
            DigestCache(tmp_path / "digests.json").digest(path)


def test_a_file_that_is_not_there(tmp_path: Path) -> None:
    with pytest.raises(BuildError, match="No such file"):
        DigestCache(tmp_path / "digests.json").digest(tmp_path / "nowhere")
