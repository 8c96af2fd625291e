"""Whose slice is next."""

from __future__ import annotations

import itertools
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from intaglio.triton_models import turnstile
from intaglio.triton_models.turnstile import Entry, Turnstile, next_index, waiting_order


def entry_of(job: int, wish: str = "", level: int = 0, work: float = 0.0, **more: Any) -> Entry[int, str]:
    return Entry(job, wish, level, work, **more)


def resident(key: str) -> Callable[[str], bool]:
    """Whether a request that wants another key needs a swap."""
    return lambda wish: wish != key


def queue_of(*entries: Entry[int, str], overtakes: int = 8) -> Turnstile[int, str]:
    queue: Turnstile[int, str] = Turnstile(overtakes=overtakes, capacity=0)
    for entry in entries:
        assert queue.put(entry)
    return queue


def served(queue: Turnstile[int, str], *, now: str = "", slices: dict[int, int] | None = None) -> list[int]:
    """Jobs in the order of their slices; each has one slice, or as many as `slices` says."""
    left = dict(slices or {})
    found: list[int] = []
    while queue.waiting()[0] or queue.running():
        entry = queue.take(resident(now))
        assert entry is not None
        now = entry.wish
        found.append(entry.job)
        left[entry.job] = left.get(entry.job, 1) - 1
        entry.work -= 1
        if left[entry.job] == 0:
            assert queue.remove(entry)
    return found


@given(
    asked=st.lists(
        st.tuples(st.sampled_from("abc"), st.integers(0, 1), st.integers(1, 4)), min_size=1, max_size=30
    ),
    arrivals=st.lists(st.integers(0, 3), min_size=30, max_size=30),
    overtakes=st.integers(0, 5),
)
def test_nobody_is_overtaken_too_often_and_sets_never_mix(
    asked: list[tuple[str, int, int]], arrivals: list[int], overtakes: int
) -> None:
    """Whatever arrives between the slices."""
    queue: Turnstile[int, str] = Turnstile(overtakes=overtakes, capacity=0)
    entries = [entry_of(job, key, level, float(work)) for job, (key, level, work) in enumerate(asked)]
    coming = list(entries)
    now, begun, over = "a", [], set()
    while len(over) < len(entries):
        for _ in range(max(arrivals[len(begun) % 30], 0 if queue.waiting()[0] or queue.running() else 1)):
            if coming:
                assert queue.put(coming.pop(0))
        if not (queue.waiting()[0] or queue.running()):
            continue
        entry = queue.take(resident(now))
        assert entry is not None
        assert entry.overtaken <= overtakes
        under_way = [other for other in entries if other.begun and other.job not in over]
        assert {other.wish for other in under_way} == {entry.wish}, "one set at a time"
        now = entry.wish
        if entry.job not in begun:
            begun.append(entry.job)
        entry.work -= 1
        if entry.work == 0:
            assert queue.remove(entry)
            over.add(entry.job)
    for place, job in enumerate(begun):
        assert place <= job + overtakes


def test_equal_requests_are_drawn_one_after_another() -> None:
    """Slices of requests of one size do not mix: each would only come later."""
    queue = queue_of(*(entry_of(job, work=3.0) for job in range(3)))
    assert served(queue, slices=dict.fromkeys(range(3), 3)) == [0, 0, 0, 1, 1, 1, 2, 2, 2]


def test_a_short_request_waits_for_one_slice_of_a_long_one() -> None:
    queue = queue_of(entry_of(0, work=20.0))
    first = queue.take(resident(""))
    assert first is not None
    assert first.job == 0
    assert queue.put(entry_of(1, work=1.0))
    first.work -= 1
    assert served(queue, slices={0: 19})[:2] == [1, 0]


def test_a_long_request_is_not_put_off_for_ever() -> None:
    """By short ones that keep coming; after `overtakes` of them it goes on to its end."""
    queue = queue_of(entry_of(0, work=20.0), overtakes=2)
    first = queue.take(resident(""))
    assert first is not None
    for job in range(1, 6):
        assert queue.put(entry_of(job, work=1.0))
    assert served(queue, slices={0: 3}) == [1, 2, 0, 0, 0, 3, 4, 5]


def test_interactive_requests_go_before_batch_requests() -> None:
    queue = queue_of(entry_of(0, level=1, work=5.0), overtakes=2)
    first = queue.take(resident(""))
    assert first is not None
    for job in (1, 2, 3):
        assert queue.put(entry_of(job, level=0, work=9.0))
    assert served(queue, slices={0: 2}) == [1, 2, 0, 0, 3]


def test_the_resident_set_goes_first() -> None:
    waiting = [entry_of(number, key) for number, key in enumerate("bab")]
    assert next_index(waiting, resident("a"), overtakes=1) == 1
    assert next_index(waiting, resident("c"), overtakes=1) == 0
    waiting[0].overtaken = 1
    assert next_index(waiting, resident("a"), overtakes=1) == 0


def test_a_request_for_other_loras_waits_for_those_under_way() -> None:
    """And no further request for theirs begins once it may not be overtaken any more."""
    queue = queue_of(entry_of(0, "a", work=9.0), overtakes=1)
    assert queue.take(resident("a")) is not None
    for job, key in ((1, "b"), (2, "a"), (3, "a")):
        assert queue.put(entry_of(job, key, work=1.0))
    assert served(queue, now="a", slices={0: 2}) == [2, 0, 0, 1, 3]


def test_an_interactive_request_for_other_loras_lets_no_batch_request_begin() -> None:
    queue = queue_of(entry_of(0, "a", level=1, work=9.0))
    assert queue.take(resident("a")) is not None
    for entry in (entry_of(1, "a", level=1, work=1.0), entry_of(2, "b", level=0, work=5.0)):
        assert queue.put(entry)
    assert served(queue, now="a", slices={0: 2}) == [0, 0, 2, 1]


def test_the_order_of_who_waits() -> None:
    entries = [
        entry_of(0, work=5.0, begun=True),
        entry_of(1, work=3.0),
        entry_of(2, level=1),
        entry_of(3, work=1.0),
    ]
    assert [entry.job for entry in waiting_order(entries, resident(""), overtakes=4)] == [3, 1, 2]
    entries[2].overtaken = 4
    assert [entry.job for entry in waiting_order(entries, resident(""), overtakes=4)] == [2, 3, 1]


def test_full_and_closed_queues() -> None:
    queue: Turnstile[int, str] = Turnstile(overtakes=8, capacity=2)
    assert [queue.put(entry_of(number)) for number in range(3)] == [True, True, False]
    taken = queue.take(resident(""))
    assert taken is not None
    assert queue.put(entry_of(3)), "one that has begun no longer takes a place"
    queue.close()
    assert not queue.put(entry_of(4))
    assert served(queue) == [0, 1, 3]
    assert queue.take(resident("")) is None


def test_the_queue_says_how_long_it_is() -> None:
    queue: Turnstile[int, str] = Turnstile(overtakes=8, capacity=0)
    assert queue.waiting() == (0, 0.0)
    for number in range(3):
        assert queue.put(entry_of(number))
    assert queue.take(resident("")) is not None
    depth, oldest = queue.waiting()
    assert (depth, queue.running()) == (2, 1)
    assert oldest > 0


def test_who_waits_may_leave_and_who_has_begun_is_hurried() -> None:
    entries = [entry_of(job, level=1, work=5.0) for job in range(4)]
    queue = queue_of(*entries)
    first = queue.take(resident(""))
    assert first is entries[0]
    assert queue.remove_waiting(lambda entry: entry.job in (0, 2)) == [entries[2]]
    assert queue.put(entry_of(4, work=1.0))
    queue.hurry(lambda entry: entry.job in (0, 3))
    assert (first.level, first.work, entries[3].work) == (0, 0, 5.0)
    assert queue.take(resident("")) is first
    assert queue.remove(first)
    assert not queue.remove(first)
    assert served(queue) == [4, 1, 3]


def test_a_drained_queue_gives_back_everybody_and_takes_nobody() -> None:
    queue = queue_of(*(entry_of(number) for number in range(3)))
    assert queue.take(resident("")) is not None
    assert queue.drain() == [0, 1, 2]
    assert not queue.put(entry_of(3))
    assert queue.take(resident("")) is None


def test_who_takes_waits_for_who_puts() -> None:
    queue: Turnstile[int, str] = Turnstile(overtakes=8, capacity=0)
    with ThreadPoolExecutor(1) as pool:
        taking = pool.submit(queue.take, resident(""))
        with pytest.raises(TimeoutError):
            taking.result(0.05)
        queue.put(entry_of(7))
        taken = taking.result(30)
    assert taken is not None
    assert taken.job == 7


class Waits(Exception):  # noqa: N818
    """An instance found nothing to draw."""


@pytest.fixture
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(turnstile, "_CHECK_SECONDS", 0.001)


def offered(
    queue: Turnstile[int, str], instance: int, has: str, *, patience: float = 60.0
) -> Entry[int, str] | None:
    """What an instance gets that has `has` resident; None where it waits, and is idle from now on."""

    def check() -> None:
        raise Waits

    try:
        return queue.take(resident(has), instance=instance, patience=patience, check=check)
    except Waits:
        return None


@pytest.mark.usefixtures("quick")
def test_each_instance_takes_what_it_has() -> None:
    queue = queue_of()
    assert (offered(queue, 0, "a"), offered(queue, 1, "b")) == (None, None)
    for job, wish in enumerate("abba"):
        assert queue.put(entry_of(job, wish))
    order = []
    for instance, has in ((1, "b"), (0, "a"), (1, "b"), (0, "a")):
        taken = offered(queue, instance, has)
        assert taken is not None
        order.append((taken.job, taken.instance))
        if len(order) > 2:
            assert queue.remove(taken)
    assert order == [(1, 1), (0, 0), (1, 1), (0, 0)], "what has begun stays where it is"
    assert [offered(queue, instance, has) for instance, has in ((0, "a"), (1, "b"))] != [None, None]


@pytest.mark.usefixtures("quick")
def test_what_another_instance_has_is_left_to_it_for_the_time_of_a_swap() -> None:
    queue = queue_of(entry_of(9, "b"), entry_of(0, "b"))
    busy = offered(queue, 1, "b")
    assert busy is not None
    assert busy.job == 9
    assert offered(queue, 0, "a") is None
    assert queue.put(entry_of(1, "c"))
    taken = offered(queue, 0, "a")
    assert taken is not None
    assert taken.job == 1, "nobody has it"
    assert queue.remove(taken)
    taken = offered(queue, 0, "c", patience=0.0)
    assert taken is not None
    assert taken.job == 0, "a swap costs no more than to wait"


@pytest.mark.usefixtures("quick")
def test_what_an_instance_will_have_counts_as_what_it_has() -> None:
    queue = queue_of(entry_of(0, "b"), entry_of(1, "b"))
    first = offered(queue, 1, "a")
    assert first is not None
    assert offered(queue, 0, "a") is None, "the other one is just swapping"


@pytest.mark.usefixtures("quick")
def test_a_set_that_nobody_has_goes_to_the_instance_that_was_idle_longest() -> None:
    queue = queue_of()
    offered(queue, 1, "b")
    offered(queue, 0, "a")
    assert queue.put(entry_of(0, "c"))
    assert offered(queue, 0, "a") is None
    taken = offered(queue, 1, "b")
    assert taken is not None
    assert taken.instance == 1


@pytest.mark.usefixtures("quick")
def test_who_was_overtaken_too_often_goes_to_the_next_instance() -> None:
    queue = queue_of(overtakes=1)
    offered(queue, 1, "b")
    for job, wish in enumerate("baa"):
        assert queue.put(entry_of(job, wish))
    for job in (1, 0):
        taken = offered(queue, 0, "a")
        assert taken is not None
        assert taken.job == job
        assert queue.remove(taken)


@pytest.mark.usefixtures("quick")
def test_what_a_lost_instance_had_begun_goes_first_elsewhere() -> None:
    queue = queue_of(entry_of(0, "a"), entry_of(1, "b"), entry_of(2, "b", expires=0.0))
    lost = offered(queue, 0, "a")
    assert lost is not None
    assert (queue.running(), queue.running(0), queue.running(1)) == (1, 1, 0)
    assert queue.leave(0, is_over=lambda entry: False) == [lost]
    assert (lost.begun, queue.waiting()[0]) == (False, 3)
    assert offered(queue, 1, "b") is lost
    assert queue.remove_waiting(lambda entry: entry.expires <= 1.0)[0].job == 2
    assert lost.expires > 1.0, "its wait was over when it had its first turn"


@pytest.mark.usefixtures("quick")
def test_what_is_over_with_a_lost_instance_is_never_begun_elsewhere() -> None:
    queue = queue_of(entry_of(0, "a"), entry_of(1, "a"))
    lost = offered(queue, 0, "a")
    assert lost is not None
    assert queue.leave(0, is_over=lambda entry: entry.job == 0) == [lost]
    assert not queue.remove(lost)
    taken = offered(queue, 1, "a")
    assert taken is not None
    assert taken.job == 1


@pytest.mark.usefixtures("quick")
def test_an_instance_ends_when_all_have_ended() -> None:
    """A picture that is drawn elsewhere may come back."""
    queue = queue_of(entry_of(0))
    taken = offered(queue, 1, "")
    assert taken is not None
    queue.close()
    assert offered(queue, 0, "") is None
    ended: list[object] = []
    waiting = threading.Thread(target=lambda: ended.append(queue.take(resident(""), instance=0)))
    waiting.start()
    assert queue.remove(taken)
    waiting.join(5)
    assert ended == [None]
    assert queue.is_empty()


@pytest.mark.usefixtures("quick")
@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None, max_examples=50)
@given(
    asked=st.lists(st.tuples(st.sampled_from("abc"), st.integers(1, 3)), min_size=1, max_size=24),
    turns=st.lists(st.integers(0, 2), min_size=1, max_size=40),
    patience=st.sampled_from([0.0, 60.0]),
)
def test_several_instances_draw_everything_and_mix_no_sets(
    asked: list[tuple[str, int]], turns: list[int], patience: float
) -> None:
    """Whichever instance is next."""
    queue: Turnstile[int, str] = Turnstile(overtakes=3, capacity=0)
    for job, (wish, work) in enumerate(asked):
        assert queue.put(entry_of(job, wish, work=float(work)))
    has = {0: "a", 1: "b", 2: "b"}
    done: list[int] = []
    for turn in itertools.cycle([*turns, 0, 1, 2]):
        if queue.is_empty():
            break
        entry = offered(queue, turn, has[turn], patience=patience)
        if entry is None:
            continue
        assert (entry.instance, entry.overtaken <= 3) == (turn, True)
        assert entry.wish == has[turn] or queue.running(turn) == 1, "no swap between two slices"
        has[turn] = entry.wish
        entry.work -= 1
        if entry.work == 0:
            assert queue.remove(entry)
            done.append(entry.job)
    assert sorted(done) == list(range(len(asked)))
