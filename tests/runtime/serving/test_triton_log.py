"""One run's part of Triton's log."""

from __future__ import annotations

from pathlib import Path

import pytest

from intaglio.serving import triton_log
from intaglio.serving.triton_log import TritonLog, load_failure

EARLIER = "I1129 16:00:00.1 1 model.cc:1] successfully loaded 'old'\n"


@pytest.fixture
def path(tmp_path: Path) -> Path:
    file = tmp_path / "logs" / "triton.log"
    file.parent.mkdir()
    file.write_text(EARLIER)
    return file


def append(path: Path, text: str) -> None:
    with path.open("a") as file:
        file.write(text)


def test_an_earlier_run_does_not_count(path: Path) -> None:
    log = TritonLog(path)
    assert (log.loaded(), log.shows_parsed_options(), log.failure()) == ([], False, None)
    append(path, "I1129 16:00:01.2 2 model.cc:1] successfully loaded 'diffuse'\n")
    assert log.loaded() == ["diffuse"]
    assert log.shows_parsed_options()


def test_the_first_exception_is_the_reason(path: Path) -> None:
    log = TritonLog(path)
    append(path, "E1129 16:00:01.2 2 x.cc:1] failed to load 'diffuse' version 1: Internal: stub died\n")
    assert log.failure() == "diffuse: Internal: stub died"
    append(path, "E1129 16:00:01.3 2 x.cc:1] TritonModelException: diffuse: no plan\n")
    assert log.failure() == "diffuse: no plan"


def test_without_a_model_the_last_error_is_the_reason(path: Path) -> None:
    log = TritonLog(path)
    append(path, "E1129 16:00:01.2 2 grpc.cc:1] failed to start\nerror: creating server: address in use\n")
    assert log.failure() == "error: creating server: address in use"


def test_a_long_log_is_moved_aside(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(triton_log, "_LIMIT", 10)
    TritonLog(path)
    assert not path.exists()
    assert path.with_name("triton.log.1").read_text() == EARLIER


def test_an_answer_that_names_no_failure() -> None:
    assert load_failure("permission denied") is None
