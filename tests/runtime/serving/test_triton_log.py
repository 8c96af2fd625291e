"""What one run's output says."""

from __future__ import annotations

import pytest

from intaglio.serving import triton_log
from intaglio.serving.triton_log import TritonLog, load_failure
from intaglio.telemetry.event_log import LogFormat, line_of

FAILED = b"E1129 16:00:01.2 2 x.cc:1] failed to load 'diffuse' version 1: Internal: stub died\n"
RAISED = b"E1129 16:00:01.3 2 x.cc:1] TritonModelException: diffuse: no plan\n"


def test_what_is_loaded() -> None:
    log = TritonLog()
    assert (log.loaded(), log.failure(), log.recent_error()) == ([], None, None)
    log.add(
        b"I1129 16:00:01.2 2 model.cc:1] successfully loaded 'diffuse'\nI1129 16:00:01.2 2 x.cc:1] more\n"
    )
    log.add(b"I1129 16:00:01.3 2 model.cc:1] successfully loaded 'sdxl'\n")
    assert log.loaded() == ["diffuse", "sdxl"]


def test_the_first_exception_is_the_reason() -> None:
    log = TritonLog()
    log.add(FAILED)
    assert log.failure() == "diffuse: Internal: stub died"
    log.add(RAISED)
    assert log.failure() == "diffuse: no plan"


def test_without_a_model_the_last_error_is_the_reason() -> None:
    log = TritonLog()
    log.add(b"E1129 16:00:01.2 2 grpc.cc:1] failed to start\nerror: creating server: address in use\n")
    assert log.failure() == "error: creating server: address in use"


def test_an_old_error_is_no_reason() -> None:
    log = TritonLog()
    log.add(b"E1129 16:00:01.2 2 x.cc:1] CUDA error: illegal address\nI1129 16:00:01.2 2 x.cc:1] bye\n")
    assert log.recent_error() == "CUDA error: illegal address"
    assert log.recent_error(seconds=-1.0) is None
    log.start_is_over()
    assert log.recent_error() is None
    log.add(b'E1129 16:00:01.2 2 model.py:9] "the model logged this"\n')
    assert log.recent_error() == "the model logged this"


def test_memory_is_bounded_and_keeps_the_beginning_and_the_end() -> None:
    log = TritonLog()
    log.add(RAISED)
    for _ in range(40):
        log.add(b"x" * 65535 + b"\n")
    log.add(b"I1129 16:00:01.2 2 model.cc:1] successfully loaded 'late'\n")
    assert log.failure() == "diffuse: no plan"
    assert log.loaded() == ["late"]
    most = triton_log._FIRST_BYTES + 65536 + 2 * triton_log._LAST_BYTES + 65536
    assert len(log._text()) <= most


def test_an_answer_that_names_no_failure() -> None:
    assert load_failure("permission denied") is None


@pytest.mark.parametrize("format", ["text", "json"])
def test_an_error_that_a_stage_logged_is_the_last_error(format: LogFormat) -> None:
    fields = {"time": "2026-11-30T09:28:05.013Z", "level": "error", "stage": "diffuse", "event": "failed"}
    log = TritonLog()
    log.add(line_of({**fields, "message": "division by zero"}, format=format))
    log.add(line_of({**fields, "level": "info", "event": "finished"}, format=format))
    error = log.recent_error()
    assert error is not None
    assert error.startswith("diffuse")
    assert "division by zero" in error
