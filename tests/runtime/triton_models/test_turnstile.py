"""Who is next in the queue."""

from __future__ import annotations

import threading
from collections.abc import Callable

from hypothesis import given
from hypothesis import strategies as st

from intaglio.triton_models.turnstile import Turnstile, Waiting, next_index


def resident(key: str) -> Callable[[str], bool]:
    """Whether a request that wants another key needs a swap."""
    return lambda wish: wish != key


@given(keys=st.lists(st.sampled_from("abc"), min_size=1, max_size=40), overtakes=st.integers(0, 5))
def test_nobody_is_overtaken_too_often_and_groups_keep_their_order(keys: list[str], overtakes: int) -> None:
    queue: Turnstile[int, str] = Turnstile(overtakes=overtakes, capacity=0)
    for number, key in enumerate(keys):
        assert queue.put(number, key)
    now = "a"
    served: list[int] = []
    while len(served) < len(keys):
        taken = queue.take(resident(now))
        assert taken is not None
        assert taken.overtaken <= overtakes
        now = taken.wish
        served.append(taken.job)
    assert sorted(served) == list(range(len(keys)))
    for key in "abc":
        mine = [job for job in served if keys[job] == key]
        assert mine == sorted(mine)
    for place, job in enumerate(served):
        assert place <= job + overtakes


def test_who_needs_no_swap_goes_first() -> None:
    waiting = [Waiting(number, key) for number, key in enumerate("bab")]
    assert next_index(waiting, resident("a"), overtakes=1) == 1
    assert next_index(waiting, resident("c"), overtakes=1) == 0
    assert next_index(waiting, resident("a"), overtakes=0) == 0


def test_full_and_closed_queues() -> None:
    queue: Turnstile[int, str] = Turnstile(overtakes=8, capacity=2)
    assert [queue.put(number, "a") for number in range(3)] == [True, True, False]
    queue.close()
    assert not queue.put(3, "a")
    served = [taken.job for _ in range(2) if (taken := queue.take(resident("a")))]
    assert served == [0, 1]
    assert queue.take(resident("a")) is None


def test_the_queue_says_how_long_it_is() -> None:
    queue: Turnstile[int, str] = Turnstile(overtakes=8, capacity=0)
    assert queue.waiting() == (0, 0.0)
    for number in range(3):
        assert queue.put(number, "a")
    depth, oldest = queue.waiting()
    assert depth == 3
    assert oldest > 0


def test_a_drained_queue_gives_back_who_waits_and_takes_nobody() -> None:
    queue: Turnstile[int, str] = Turnstile(overtakes=8, capacity=0)
    for number in range(3):
        assert queue.put(number, "a")
    assert queue.drain() == [0, 1, 2]
    assert not queue.put(3, "a")
    assert queue.take(resident("a")) is None


def test_who_takes_waits_for_who_puts() -> None:
    queue: Turnstile[int, str] = Turnstile(overtakes=8, capacity=0)
    timer = threading.Timer(0.05, queue.put, (7, "a"))
    timer.start()
    taken = queue.take(resident(""))
    assert taken is not None
    assert taken.job == 7
