"""presets.json: whole or not there, read again when it was replaced, never the end of a running server."""

from __future__ import annotations

from pathlib import Path

import pytest

from intaglio.builds.published_presets import PRESETS_NAME, PublishedPresets, publish_presets
from intaglio.contract.presets import Presets
from intaglio.errors import ConfigError

BEACH = Presets(scenes={"beach": "on a beach"})
SNOW = Presets.model_validate({"scenes": {"snow": "in the snow"}, "quality": {"draft": {"steps": 8}}})


def test_a_reader_sees_what_is_published_next(tmp_path: Path) -> None:
    read = PublishedPresets(tmp_path)
    assert read.current() == Presets(), "a build without presets"
    publish_presets(tmp_path, BEACH)
    assert read.current() == BEACH
    publish_presets(tmp_path, SNOW)
    assert read.current() == SNOW
    assert read.current() is read.current(), "the file is not read again"


def test_the_same_presets_are_not_written_again(tmp_path: Path) -> None:
    publish_presets(tmp_path, SNOW)
    before = (tmp_path / PRESETS_NAME).stat()
    publish_presets(tmp_path, SNOW)
    assert (tmp_path / PRESETS_NAME).stat().st_ino == before.st_ino


def test_a_damaged_file_ends_no_running_server(tmp_path: Path) -> None:
    publish_presets(tmp_path, BEACH)
    read = PublishedPresets(tmp_path)
    assert read.current() == BEACH
    (tmp_path / PRESETS_NAME).write_text('{"quality": {"draft": {"steps": 0}}}')
    assert read.current() == BEACH
    assert read.problem is not None
    assert "quality.draft: steps: 0 is out of range" in read.problem
    with pytest.raises(ConfigError, match=r"presets\.json: quality\.draft.*intaglio build writes it again"):
        PublishedPresets(tmp_path).current()
    publish_presets(tmp_path, SNOW)
    assert (read.current(), read.problem) == (SNOW, None)


def test_a_file_that_cannot_be_read_ends_none_either(tmp_path: Path) -> None:
    publish_presets(tmp_path, BEACH)
    read = PublishedPresets(tmp_path)
    assert read.current() == BEACH
    (tmp_path / PRESETS_NAME).unlink()
    (tmp_path / PRESETS_NAME).mkdir()
    assert read.current() == BEACH
    assert "Is a directory" in (read.problem or "")


def test_a_file_that_is_gone_ends_none_and_the_log_says_where(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    publish_presets(tmp_path, BEACH)
    read = PublishedPresets(tmp_path)
    assert read.current() == BEACH
    (tmp_path / PRESETS_NAME).unlink()
    assert read.current() == read.current() == BEACH
    assert "presets.json: it is gone" in (read.problem or "")
    assert str(tmp_path) not in (read.problem or "")
    (message,) = caplog.messages
    assert str(tmp_path) in message


def test_a_passing_error_leaves_no_warning(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    publish_presets(tmp_path, BEACH)
    read = PublishedPresets(tmp_path)
    assert read.current() == BEACH
    with monkeypatch.context() as patched:
        patched.setattr(Path, "stat", _failing_stat)
        assert read.current() == BEACH
        assert "Input/output error" in (read.problem or "")
    assert (read.current(), read.problem) == (BEACH, None)


def _failing_stat(path: Path) -> None:
    raise OSError(5, "Input/output error", str(path))
