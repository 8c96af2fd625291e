"""Compiled kernels are kept whole or not at all, and once for each change."""

from __future__ import annotations

import logging
from pathlib import Path
from typing import Any

import pytest

from intaglio.engines.tensorrt.runtime_cache import RuntimeCache, RuntimeCaches


class LibraryCache:
    """`IRuntimeCache`."""

    def __init__(self, data: bytes | None, *, usable: bool = True) -> None:
        self.data = data
        self.usable = usable
        self.read: bytes | None = None

    def serialize(self) -> bytes | None:
        return self.data

    def deserialize(self, data: bytes) -> bool:
        self.read = data
        return self.usable


def cache_of(data: bytes | None, path: Path) -> RuntimeCache:
    given: Any = LibraryCache(data)
    return RuntimeCache(given, path)


def test_a_cache_is_written_whole_or_not_at_all(tmp_path: Path) -> None:
    cache_of(b"kernels", tmp_path / "a").write()
    assert (tmp_path / "a").read_bytes() == b"kernels"
    assert (tmp_path / "a").stat().st_mode & 0o777 == 0o644
    cache_of(None, tmp_path / "b").write()
    (tmp_path / "c").mkdir()
    cache_of(b"kernels", tmp_path / "c").write()  # a folder is in its place
    assert sorted(path.name for path in tmp_path.iterdir()) == ["a", "c"]


def test_a_known_cache_is_read(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    (tmp_path / "a").write_bytes(b"kernels")
    given: Any = LibraryCache(None)
    RuntimeCache(given, tmp_path / "a")
    assert given.read == b"kernels"
    foreign: Any = LibraryCache(None, usable=False)
    with caplog.at_level(logging.INFO):
        RuntimeCache(foreign, tmp_path / "a")
    assert "of another card, driver or version" in caplog.text


def test_each_changed_cache_is_written_once(tmp_path: Path) -> None:
    first = cache_of(b"1", tmp_path / "first")
    caches = RuntimeCaches()
    caches.expect_change(first)
    caches.expect_change(first)
    caches.write()
    assert (tmp_path / "first").read_bytes() == b"1"
    (tmp_path / "first").unlink()
    caches.write()
    assert not (tmp_path / "first").exists(), "nothing changed since"
