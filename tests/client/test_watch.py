"""Which files of a folder are followed."""

from __future__ import annotations

import os
import time
from pathlib import Path

from intaglio_client.watch import Follower


def test_a_file_counts_once_it_is_whole(tmp_path: Path) -> None:
    follower = Follower(tmp_path)
    path = tmp_path / "a.safetensors"
    assert follower.look() is None
    path.write_bytes(b"1")
    assert follower.look() is None, "somebody may still be writing"
    path.write_bytes(b"12")
    assert follower.look() is None
    assert follower.look() == path
    assert follower.look() is None, "once"
    (tmp_path / "a_kohya.safetensors").write_bytes(b"the same in another layout")
    (tmp_path / "b.partial").write_bytes(b"1")
    assert [follower.look() for _ in range(3)] == [None] * 3
    os.utime(path, ns=(time.time_ns(), time.time_ns()))
    assert [follower.look() for _ in range(2)] == [None, path]
