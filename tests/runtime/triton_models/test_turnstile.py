"""Whose slice is next."""

from __future__ import annotations

import threading
import time

import pytest
from hypothesis import given
from hypothesis import strategies as st

from intaglio.triton_models.turnstile import Entry, Turnstile, next_index, waiting_order


def queue_of(*entries: Entry[int], overtakes: int = 8) -> Turnstile[int]:
    queue: Turnstile[int] = Turnstile(overtakes=overtakes, capacity=0)
    for entry in entries:
        assert queue.put(entry)
    return queue


def served(queue: Turnstile[int], *, resident: str = "", slices: dict[int, int] | None = None) -> list[int]:
    """Jobs in the order of their slices; each has one slice, or as many as `slices` says."""
    left = dict(slices or {})
    found: list[int] = []
    while queue.waiting()[0] or queue.running():
        entry = queue.take(resident)
        assert entry is not None
        resident = entry.key
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
    queue: Turnstile[int] = Turnstile(overtakes=overtakes, capacity=0)
    entries = [Entry(job, key, level, float(work)) for job, (key, level, work) in enumerate(asked)]
    coming = list(entries)
    resident, begun, over = "a", [], set()
    while len(over) < len(entries):
        for _ in range(max(arrivals[len(begun) % 30], 0 if queue.waiting()[0] or queue.running() else 1)):
            if coming:
                assert queue.put(coming.pop(0))
        if not (queue.waiting()[0] or queue.running()):
            continue
        entry = queue.take(resident)
        assert entry is not None
        assert entry.overtaken <= overtakes
        under_way = [other for other in entries if other.begun and other.job not in over]
        assert {other.key for other in under_way} == {entry.key}, "one set at a time"
        resident = entry.key
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
    queue = queue_of(*(Entry(job, work=3.0) for job in range(3)))
    assert served(queue, slices=dict.fromkeys(range(3), 3)) == [0, 0, 0, 1, 1, 1, 2, 2, 2]


def test_a_short_request_waits_for_one_slice_of_a_long_one() -> None:
    queue = queue_of(Entry(0, work=20.0))
    first = queue.take("")
    assert first is not None
    assert first.job == 0
    assert queue.put(Entry(1, work=1.0))
    first.work -= 1
    assert served(queue, slices={0: 19})[:2] == [1, 0]


def test_a_long_request_is_not_put_off_for_ever() -> None:
    """By short ones that keep coming; after `overtakes` of them it goes on to its end."""
    queue = queue_of(Entry(0, work=20.0), overtakes=2)
    first = queue.take("")
    assert first is not None
    for job in range(1, 6):
        assert queue.put(Entry(job, work=1.0))
    assert served(queue, slices={0: 3}) == [1, 2, 0, 0, 0, 3, 4, 5]


def test_interactive_requests_go_before_batch_requests() -> None:
    queue = queue_of(Entry(0, level=1, work=5.0), overtakes=2)
    first = queue.take("")
    assert first is not None
    for job in (1, 2, 3):
        assert queue.put(Entry(job, level=0, work=9.0))
    assert served(queue, slices={0: 2}) == [1, 2, 0, 0, 3]


def test_the_resident_set_goes_first() -> None:
    waiting = [Entry(number, key) for number, key in enumerate("bab")]
    assert next_index(waiting, "a", overtakes=1) == 1
    assert next_index(waiting, "c", overtakes=1) == 0
    waiting[0].overtaken = 1
    assert next_index(waiting, "a", overtakes=1) == 0


def test_a_request_for_other_loras_waits_for_those_under_way() -> None:
    """And no further request for theirs begins once it may not be overtaken any more."""
    queue = queue_of(Entry(0, "a", work=9.0), overtakes=1)
    assert queue.take("a") is not None
    for job, key in ((1, "b"), (2, "a"), (3, "a")):
        assert queue.put(Entry(job, key, work=1.0))
    assert served(queue, resident="a", slices={0: 2}) == [2, 0, 0, 1, 3]


def test_an_interactive_request_for_other_loras_lets_no_batch_request_begin() -> None:
    queue = queue_of(Entry(0, "a", level=1, work=9.0))
    assert queue.take("a") is not None
    for entry in (Entry(1, "a", level=1, work=1.0), Entry(2, "b", level=0, work=5.0)):
        assert queue.put(entry)
    assert served(queue, resident="a", slices={0: 2}) == [0, 0, 2, 1]


def test_the_order_of_who_waits() -> None:
    entries = [Entry(0, work=5.0, begun=True), Entry(1, work=3.0), Entry(2, level=1), Entry(3, work=1.0)]
    assert [entry.job for entry in waiting_order(entries, "", overtakes=4)] == [3, 1, 2]
    entries[2].overtaken = 4
    assert [entry.job for entry in waiting_order(entries, "", overtakes=4)] == [2, 3, 1]


def test_full_and_closed_queues() -> None:
    queue: Turnstile[int] = Turnstile(overtakes=8, capacity=2)
    assert [queue.put(Entry(number)) for number in range(3)] == [True, True, False]
    taken = queue.take("")
    assert taken is not None
    assert queue.put(Entry(3)), "one that has begun no longer takes a place"
    queue.close()
    assert not queue.put(Entry(4))
    assert served(queue) == [0, 1, 3]
    assert queue.take("") is None


def test_the_queue_says_how_long_it_is() -> None:
    queue: Turnstile[int] = Turnstile(overtakes=8, capacity=0)
    assert queue.waiting() == (0, 0.0)
    for number in range(3):
        assert queue.put(Entry(number))
    assert queue.take("") is not None
    depth, oldest = queue.waiting()
    assert (depth, queue.running()) == (2, 1)
    assert oldest > 0


def test_who_waits_may_leave_and_who_has_begun_is_hurried() -> None:
    entries = [Entry(job, level=1, work=5.0) for job in range(4)]
    queue = queue_of(*entries)
    first = queue.take("")
    assert first is entries[0]
    assert queue.remove_waiting(lambda entry: entry.job in (0, 2)) == [entries[2]]
    assert queue.put(Entry(4, work=1.0))
    queue.hurry(lambda entry: entry.job in (0, 3))
    assert (first.level, first.work, entries[3].work) == (0, 0, 5.0)
    assert queue.take("") is first
    assert queue.remove(first)
    assert not queue.remove(first)
    assert served(queue) == [4, 1, 3]


def test_a_drained_queue_gives_back_everybody_and_takes_nobody() -> None:
    queue = queue_of(*(Entry(number) for number in range(3)))
    assert queue.take("") is not None
    assert queue.drain() == [0, 1, 2]
    assert not queue.put(Entry(3))
    assert queue.take("") is None


def test_who_takes_waits_for_who_puts() -> None:
    queue: Turnstile[int] = Turnstile(overtakes=8, capacity=0)
    timer = threading.Timer(0.05, queue.put, (Entry(7),))
    timer.start()
    started = time.monotonic()
    taken = queue.take("")
    assert taken is not None
    assert taken.job == 7
    assert time.monotonic() - started == pytest.approx(0.05, abs=0.04)
