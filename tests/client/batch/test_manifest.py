"""The manifest outlives crashes, and says what is damaged."""

from __future__ import annotations

import os
import resource
import signal
from pathlib import Path

import pytest

from intaglio.errors import ConfigError
from intaglio_client.batch.manifest import Manifest, read_manifest

from .records import record


def test_lines_come_back_as_they_were_written(tmp_path: Path) -> None:
    path = tmp_path / "manifest.jsonl"
    records = [record(0, reason="größer\n\u2028"), record(1)]
    with Manifest(path) as manifest:
        assert manifest.read() == []
        for one in records:
            manifest.append(one)
    assert read_manifest(path) == records
    assert len(path.read_bytes().split(b"\n")) == 3


@pytest.mark.parametrize("kept", range(1, 60, 7))
def test_a_last_line_that_was_cut_short_does_not_count_and_is_replaced(tmp_path: Path, kept: int) -> None:
    path = tmp_path / "manifest.jsonl"
    with Manifest(path) as manifest:
        manifest.append(record(0))
        whole = path.stat().st_size
        manifest.append(record(1))
    with path.open("r+b") as file:
        file.truncate(whole + kept)
    assert read_manifest(path) == [record(0)]
    with Manifest(path) as manifest:
        manifest.append(record(1))
        manifest.append(record(2))
    assert read_manifest(path) == [record(0), record(1), record(2)]


def test_zeros_that_a_power_failure_left_do_not_count(tmp_path: Path) -> None:
    path = tmp_path / "manifest.jsonl"
    with Manifest(path) as manifest:
        manifest.append(record(0))
    with path.open("ab") as file:
        file.write(b"\0" * 40 + b"\n")
    assert read_manifest(path) == [record(0)]
    with Manifest(path) as manifest:
        manifest.append(record(1))
    assert read_manifest(path) == [record(0), record(1)]


def test_a_damaged_line_in_the_middle_is_named(tmp_path: Path) -> None:
    path = tmp_path / "manifest.jsonl"
    with Manifest(path) as manifest:
        for index in range(3):
            manifest.append(record(index))
    lines = path.read_bytes().split(b"\n")
    path.write_bytes(b"\n".join([lines[0], lines[1][:20], *lines[2:]]))
    with pytest.raises(ConfigError, match="line 2: no JSON"):
        read_manifest(path)
    path.write_text('{"index": 0}\n{"index": 1}\n')
    with pytest.raises(ConfigError, match="line 1: has no accepted"):
        read_manifest(path)
    with pytest.raises(ConfigError, match="no such file"):
        read_manifest(tmp_path / "none.jsonl")


def test_a_line_that_the_disk_refuses_leaves_no_part(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "manifest.jsonl"

    def full(descriptor: int) -> None:
        raise OSError(28, "No space left on device")

    with Manifest(path) as manifest:
        manifest.append(record(0))
        with monkeypatch.context() as patched:
            patched.setattr(os, "fsync", full)
            with pytest.raises(OSError, match="No space"):
                manifest.append(record(1))
        assert read_manifest(path) == [record(0)]
        manifest.append(record(1))
    assert read_manifest(path) == [record(0), record(1)]


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("file", "../../secret.png"),
        ("file", "/etc/hosts"),
        ("file", "accepted/../../a.png"),
        ("file", "c:\\a.png"),
        ("item", "../../secret"),
        ("index", "0"),
        ("index", -1),
        ("index", True),
        ("bytes", 1.5),
        ("accepted", "no"),
        ("scores", {"blank": 1}),
        ("inputs", {}),
    ],
)
def test_a_value_that_no_batch_writes_is_named(tmp_path: Path, key: str, value: object) -> None:
    """Its paths above all: pictures are moved and read by them."""
    path = tmp_path / "manifest.jsonl"
    Manifest(path).keep([record(0), {**record(1), key: value}])
    with pytest.raises(
        ConfigError, match=f"line 2: {key}.* is not what intaglio batch writes; another program wrote it"
    ):
        read_manifest(path)


def test_a_line_that_does_not_fit_leaves_nothing_of_itself(tmp_path: Path) -> None:
    """The system refuses the rest of a line, and refuses it again when the file is closed."""
    path = tmp_path / "manifest.jsonl"
    with Manifest(path) as manifest:
        manifest.append(record(0))
        whole = path.read_bytes()
        before = resource.getrlimit(resource.RLIMIT_FSIZE)
        handler = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
        resource.setrlimit(resource.RLIMIT_FSIZE, (len(whole) + 20, before[1]))
        try:
            with pytest.raises(OSError, match="File too large"):
                manifest.append(record(1))
            assert path.read_bytes() == whole
        finally:
            resource.setrlimit(resource.RLIMIT_FSIZE, before)
            signal.signal(signal.SIGXFSZ, handler)
        manifest.append(record(1))
    assert read_manifest(path) == [record(0), record(1)]
