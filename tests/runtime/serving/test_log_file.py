"""A log with a bound, which one server writes."""

from __future__ import annotations

import errno
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from intaglio.serving import log_file
from intaglio.serving.log_file import LOG_MIB, LogFile

DOCS = Path(__file__).parents[3] / "docs"


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "logs" / "triton.log"


@pytest.fixture
def log(path: Path) -> Iterator[LogFile]:
    opened = LogFile(path)
    yield opened
    opened.close()


def test_the_documentation_names_the_limit() -> None:
    operating, loras = ((DOCS / name).read_text(encoding="utf-8") for name in ("operating.md", "loras.md"))
    assert f"at most {LOG_MIB} MiB, and as much again in `triton.log.1`" in operating
    assert f"The log has at most {LOG_MIB} MiB" in loras


def test_a_log_that_is_written_stays_bounded(
    log: LogFile, path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(log_file, "_LIMIT", 1000)
    for number in range(1000):
        log.write(f"line {number:04}\n".encode())
        assert path.stat().st_size <= 1000
    older = path.with_name("triton.log.1").read_text()
    assert len(older) <= 1000
    last = [f"line {number:04}" for number in range(1000)]
    kept = (older + path.read_text()).splitlines()
    assert kept == last[-len(kept) :], "the last lines, none lost between the two files"
    assert len(kept) > 100


def test_two_servers_have_a_file_each(log: LogFile, path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(log_file, "_LIMIT", 100)
    second = LogFile(path)
    assert (log.path, second.path) == (path, path.with_name("triton-2.log"))
    for _ in range(100):
        log.write(b"first\n")
        second.write(b"second\n")
    third = LogFile(path)
    assert third.path.name == "triton-3.log", "the first file is still locked after it was emptied"
    third.close()
    assert set(path.read_text().split()) == {"first"}
    assert set(second.path.read_text().split()) == {"second"}
    second.close()
    again = LogFile(path)
    assert again.path == second.path, "a name that is free again"
    again.close()


def test_a_full_disk_loses_lines_and_says_so(
    log: LogFile, path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    real = os.write
    with monkeypatch.context() as full:
        full.setattr(log_file.os, "write", lambda descriptor, data: real(descriptor, data[:3]))
        log.write(b"torn line\n")

        def fail(*_: Any) -> int:
            raise OSError(errno.ENOSPC, "No space left on device")

        full.setattr(log_file.os, "write", fail)
        log.write(b"lost line\n")
    log.write(b"whole\n")
    log.write(b"again\n")
    assert path.read_text().splitlines() == [
        "tor", "intaglio: 17 bytes of this log could not be written", "whole", "again",
    ]  # fmt: skip


def test_without_room_for_the_older_lines_the_file_is_bounded_all_the_same(
    log: LogFile, path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(_: Path, target: Path) -> None:
        target.write_text("half")
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(log_file, "_LIMIT", 10)
    monkeypatch.setattr(log_file.shutil, "copyfile", fail)
    log.write(b"12345678\n")
    log.write(b"new\n")
    assert path.read_text() == "new\n"
    assert not path.with_name("triton.log.1").exists()


def test_what_is_no_file_is_not_bounded() -> None:
    log = LogFile(Path("/dev/null"))
    log.write(b"x\n")
    log.close()
    assert log.path == Path("/dev/null")
