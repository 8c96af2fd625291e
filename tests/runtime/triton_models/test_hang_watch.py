"""How long an instance may take to answer, and who looks."""

from __future__ import annotations

import threading
import time
from types import SimpleNamespace

import pytest

from intaglio.triton_models import hang_watch
from intaglio.triton_models.hang_watch import OPEN_SECONDS, Expected, HangWatch, Question


def test_a_question_is_late_once_it_has_waited_for_longer_than_its_limit() -> None:
    question = Question()
    assert question.late(1000.0) is None, "nobody asks"
    question.ask(10.0)
    assert question.late(60.0) is None, "it was asked after the last look"
    assert question.late(6.0) is None
    assert question.late(4.0) is None, "just its limit"
    assert question.late(0.1) == 10.0
    question.ask(10.0)
    assert question.late(1.0) is None
    assert question.late(6.0) is None, "each question begins anew"
    question.end()
    assert question.late(1000.0) is None


def test_what_was_not_done_before_may_take_as_long_as_opening() -> None:
    """The first slice of a shape compiles kernels; so does the first picture that is decoded."""
    expected = Expected(120.0)
    assert expected.limit("a", work=6.0) == OPEN_SECONDS
    expected.did("a", work=5.0, seconds=1.0)
    assert expected.limit("a", work=6.0) == 120.0
    assert expected.limit("b", work=6.0) == OPEN_SECONDS
    expected.did("b")
    assert expected.limit("b", work=6.0) == 120.0
    assert expected.limit(None, work=6.0) == 120.0, "no network runs"
    expected.forget()
    assert expected.limit("a", work=6.0) == OPEN_SECONDS, "of another process"
    assert Expected(2 * OPEN_SECONDS).limit("a", work=1.0) == 2 * OPEN_SECONDS


def test_a_slow_machine_gets_ten_times_what_the_work_should_take() -> None:
    """A caller chooses how many steps a slice has, so the longest slice seen says little."""
    expected = Expected(120.0)
    expected.did("a", work=1.0, seconds=30.0)
    assert expected.limit("a", work=2.0) == pytest.approx(10 * 30.0 * 2)
    assert expected.limit("a", work=50.0) == pytest.approx(10 * 30.0 * 50)
    assert expected.limit("b", work=2.0) == OPEN_SECONDS
    assert expected.limit("b", work=50.0) == pytest.approx(10 * 30.0 * 50), "a new shape is no faster"
    assert expected.limit(None, work=2.0) == pytest.approx(10 * 30.0 * 2)


def test_shapes_that_requests_choose_do_not_add_up() -> None:
    expected = Expected(120.0)
    for number in range(1000):
        expected.did(number)
    assert len(expected._seen) == 256


class Looked:
    def __init__(self) -> None:
        self.passed: list[float] = []
        self.often = threading.Event()

    def look(self, seconds: float) -> None:
        self.passed.append(seconds)
        if len(self.passed) >= 3:
            self.often.set()


def test_time_in_which_this_process_was_stopped_counts_little(monkeypatch: pytest.MonkeyPatch) -> None:
    """Whoever pauses a container pauses its instances, too."""
    clock = iter(range(0, 1_000_000, 3600))
    monkeypatch.setattr(hang_watch, "_LOOK_SECONDS", 0.01)
    monkeypatch.setattr(hang_watch, "time", SimpleNamespace(monotonic=lambda: float(next(clock))))
    seen = Looked()
    watch = HangWatch([seen])
    watch.start()
    assert seen.often.wait(10)
    watch.close()
    assert set(seen.passed) == {0.02}
    done = len(seen.passed)
    time.sleep(0.05)
    assert len(seen.passed) == done


class Failing:
    """An instance that cannot be looked at."""

    def look(self, seconds: float) -> None:
        raise OSError(24, "Too many open files")


def test_a_look_that_fails_ends_neither_the_watch_nor_the_looks_at_others(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(hang_watch, "_LOOK_SECONDS", 0.01)
    seen = Looked()
    watch = HangWatch([Failing(), seen])
    watch.start()
    assert seen.often.wait(10)
    watch.close()
    assert "error: hang watch: a look at an instance failed" in caplog.messages
    assert "Too many open files" in caplog.text
