"""Instances that are lost: what becomes of their pictures, and of themselves."""

from __future__ import annotations

import json
import threading
from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

import pytest

from intaglio.errors import Unavailable
from intaglio.serving.json_log import json_lines
from intaglio.triton_models import crew
from intaglio.triton_models.crew import MOST_RESTARTS, Crew, Seat
from intaglio.triton_models.instances import InstanceLost
from intaglio.triton_models.places import Place
from intaglio.triton_models.request_metrics import RequestCounts
from intaglio.triton_models.turnstile import Entry, Turnstile


class Instance:
    """An instance of which each start goes as `opens` says, the last one for ever."""

    swap_seconds = 0.0

    def __init__(self, number: int, opens: list[bool] | None = None) -> None:
        self.place = Place(number)
        self.opens = opens or [True]
        self.starts = 0

    def needs_swap(self, wish: object) -> bool:
        return False

    def check(self) -> None: ...

    def start(self, *, hashes: bool) -> None:
        self.starts += 1

    def wait_open(self, *, is_needless: Callable[[], bool]) -> None:
        if not self.opens[min(self.starts, len(self.opens)) - 1]:
            raise Unavailable("no memory")


class Scene:
    """A crew, and what it says."""

    def __init__(self, *instances: Instance, draw: Callable[[Entry[Any, Any], int], None]) -> None:
        self.turnstile: Turnstile[Any, Any] = Turnstile(overtakes=8, capacity=0)
        self.given_up: list[str] = []
        self.ended: list[tuple[Any, Exception]] = []
        self.over = threading.Event()
        self.seats = []
        for instance in instances:
            seat: Any = Seat(instance, SimpleNamespace(number=instance.place.number), RequestCounts())  # type: ignore[arg-type]
            self.seats.append(seat)

        def drawn(entry: Entry[Any, Any], drawer: Any) -> None:
            draw(entry, drawer.number)
            assert self.turnstile.remove(entry)
            if self.turnstile.is_empty():
                self.over.set()

        def end(entry: Entry[Any, Any], error: Exception) -> None:
            self.ended.append((entry.job, error))
            self.over.set()

        def give_up(why: str) -> None:
            self.given_up.append(why)
            self.over.set()

        self.crew = Crew(self.seats, self.turnstile, draw=drawn, end=end, give_up=give_up)

    def run(self, pictures: int) -> list[Any]:
        jobs = [SimpleNamespace(losses=0) for _ in range(pictures)]
        for job in jobs:
            assert self.turnstile.put(Entry(job, ""))
        self.crew.start()
        assert self.over.wait(20)
        self.turnstile.close()
        self.crew.close()
        return jobs


@pytest.fixture(autouse=True)
def _at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(crew, "_FIRST_DELAY", 0.0)


def test_pictures_of_a_lost_instance_go_on_elsewhere() -> None:
    drawn: list[int] = []
    lost = threading.Event()

    def draw(entry: Entry[Any, Any], number: int) -> None:
        if number == 0 and not lost.is_set():
            lost.set()
            raise InstanceLost("killed")
        assert lost.wait(10)
        drawn.append(number)

    scene = Scene(Instance(0), Instance(1), draw=draw)
    jobs = scene.run(5)
    assert len(drawn) == 5
    assert [job.losses for job in jobs].count(1) == 1
    assert (scene.seats[0].moved, scene.seats[1].moved) == (1, 0)
    assert (scene.given_up, scene.ended) == ([], [])


def test_the_queue_waits_while_the_only_instance_starts_again() -> None:
    instance = Instance(0, [False, True])
    calls: list[int] = []

    def draw(entry: Entry[Any, Any], number: int) -> None:
        calls.append(number)
        if len(calls) == 1:
            raise InstanceLost("killed")

    scene = Scene(instance, draw=draw)
    scene.run(3)
    assert (instance.starts, len(calls)) == (2, 4), "one start failed"
    seat = scene.seats[0]
    assert (seat.up, seat.restarted, seat.moved) == (True, 1, 1)


def test_an_instance_that_cannot_be_started_is_given_up(caplog: pytest.LogCaptureFixture) -> None:
    instance = Instance(0, [False])

    def draw(entry: Entry[Any, Any], number: int) -> None:
        raise InstanceLost("instance 0: killed")

    scene = Scene(instance, draw=draw)
    scene.run(1)
    assert instance.starts == MOST_RESTARTS
    assert scene.given_up == [f"no memory; given up after {MOST_RESTARTS} restarts"]
    assert not scene.seats[0].up
    assert "instance 0: killed; restart 1 of 5" in caplog.text
    (line,) = json_lines(f"{caplog.messages[-1]}\n".encode()).splitlines()
    assert json.loads(line)["level"] == "error"


def test_others_go_on_without_an_instance_that_is_given_up() -> None:
    gone = threading.Event()

    def draw(entry: Entry[Any, Any], number: int) -> None:
        if number == 0:
            gone.set()
            raise InstanceLost("killed")
        assert gone.wait(10)

    scene = Scene(Instance(0, [False]), Instance(1), draw=draw)
    scene.run(4)
    assert (scene.given_up, scene.ended) == ([], [])
    assert scene.seats[1].up


def test_a_picture_that_costs_three_instances_is_refused() -> None:
    def draw(entry: Entry[Any, Any], number: int) -> None:
        raise InstanceLost("instance 0: killed by SIGSEGV")

    scene = Scene(Instance(0), draw=draw)
    (job,) = scene.run(1)
    ((ended, error),) = scene.ended
    assert ended is job
    assert scene.seats[0].moved == 2, "the last time it went nowhere"
    assert str(error).startswith("3 instances were lost while they had this picture; the last: instance 0")
    assert scene.turnstile.is_empty()


def test_no_other_instance_draws_a_picture_that_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    """Its caller would get two answers. The log line between gives the idle instance its time."""
    drawn: list[int] = []

    def draw(entry: Entry[Any, Any], number: int) -> None:
        drawn.append(number)
        raise InstanceLost("killed by SIGSEGV")

    scene = Scene(Instance(0), Instance(1), draw=draw)
    taken = threading.Event()
    take = scene.turnstile.take

    def told(*args: Any, **keys: Any) -> Any:
        entry = take(*args, **keys)
        if entry is not None and entry.job.losses >= 3:
            taken.set()
        return entry

    monkeypatch.setattr(scene.turnstile, "take", told)
    monkeypatch.setattr(crew._log, "warning", lambda *words: taken.wait(0.2))
    (job,) = scene.run(1)
    assert (len(drawn), job.losses) == (3, 3)
    assert [ended for ended, _ in scene.ended] == [job]


def test_nobody_waits_for_an_instance_that_opens_when_all_is_drawn(monkeypatch: pytest.MonkeyPatch) -> None:
    """Engines take minutes. A server that stops, or unloads an old build, would wait for them."""
    opening = threading.Event()
    needless: list[bool] = []

    def wait_open(*, is_needless: Callable[[], bool]) -> None:
        opening.set()
        for _ in range(4000):
            if is_needless():
                needless.append(True)
                raise InstanceLost("ended")
            threading.Event().wait(0.005)

    def draw(entry: Entry[Any, Any], number: int) -> None:
        if number == 0:
            raise InstanceLost("killed")
        assert opening.wait(10)

    lost = Instance(0)
    monkeypatch.setattr(lost, "wait_open", wait_open)
    scene = Scene(lost, Instance(1), draw=draw)
    scene.run(2)
    assert (needless, scene.given_up, scene.seats[0].restarted) == ([True], [], 0)
