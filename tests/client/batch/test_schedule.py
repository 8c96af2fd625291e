"""Which picture is drawn next, and which one is judged next."""

from __future__ import annotations

import threading

import pytest

from intaglio_client.batch.schedule import Drawn, Schedule
from intaglio_client.image import Image

PICTURE = Drawn(Image(b"", {}), "a:1", "")


def test_pictures_are_handed_out_in_order_and_those_given_back_first() -> None:
    schedule = Schedule(range(10), wanted=lambda index: index != 1, ahead=10)
    assert [schedule.take("a:1") for _ in range(3)] == [0, 2, 3]
    schedule.give_back(2, "a:1")
    schedule.give_back(0, "a:1")
    assert [schedule.take("a:1") for _ in range(3)] == [0, 2, 4]


def test_at_most_so_many_are_drawn_ahead() -> None:
    schedule = Schedule(range(10), wanted=lambda index: True, ahead=2)
    assert [schedule.take("a:1"), schedule.take("a:1")] == [0, 1]
    taken: list[int | None] = []
    waiting = threading.Thread(target=lambda: taken.append(schedule.take("a:1")))
    waiting.start()
    schedule.deliver(1, PICTURE)  # it waits for the picture 0
    assert schedule.wait_for(0, seconds=0.01) is None
    assert taken == []
    schedule.deliver(0, PICTURE)
    assert schedule.wait_for(0, seconds=5) is PICTURE
    waiting.join(5)
    assert taken == [2]


def test_the_picture_that_all_wait_for_is_drawn_by_another_server_too() -> None:
    schedule = Schedule(range(10), wanted=lambda index: True, ahead=3)
    schedule.move_to(0)
    assert [schedule.take("slow:1"), schedule.take("fast:1"), schedule.take("fast:1")] == [0, 1, 2]
    for index in (1, 2):
        schedule.deliver(index, PICTURE)
    assert schedule.take("fast:1") == 0
    schedule.give_back(0, "slow:1")  # it is being drawn still
    schedule.deliver(0, PICTURE)
    for index in range(3):
        assert schedule.wait_for(index, seconds=5) is PICTURE
    assert [schedule.take("fast:1") for _ in range(3)] == [3, 4, 5]


def test_pictures_that_are_passed_are_dropped_and_not_drawn_again() -> None:
    schedule = Schedule(range(10), wanted=lambda index: True, ahead=10)
    assert [schedule.take("a:1") for _ in range(4)] == [0, 1, 2, 3]
    schedule.deliver(1, PICTURE)
    schedule.move_to(3)
    schedule.deliver(2, PICTURE)
    schedule.give_back(0, "a:1")
    assert schedule.take("a:1") == 4
    for index in (1, 2):
        assert schedule.wait_for(index, seconds=0) is None


def test_a_picture_that_fails_ends_the_batch_when_those_before_it_are_judged() -> None:
    schedule = Schedule(range(9), wanted=lambda index: True, ahead=9)
    assert [schedule.take("a:1") for _ in range(4)] == [0, 1, 2, 3]
    schedule.fail(2, ValueError("two"))
    schedule.fail(3, ValueError("three"))
    schedule.give_back(1, "a:1")
    schedule.deliver(0, PICTURE)
    assert schedule.wait_for(0, seconds=5) is PICTURE
    assert schedule.take("a:1") == 1, "the only one that is still drawn"
    schedule.deliver(1, PICTURE)
    assert schedule.wait_for(1, seconds=5) is PICTURE
    with pytest.raises(ValueError, match="two"):
        schedule.wait_for(2, seconds=5)
    assert [schedule.failures(0), schedule.failures(0)] == [1, 2]


def test_nothing_is_handed_out_once_it_is_closed() -> None:
    schedule = Schedule([], wanted=lambda index: True, ahead=1)
    taken: list[int | None] = []
    waiting = threading.Thread(target=lambda: taken.append(schedule.take("a:1")))
    waiting.start()
    schedule.close()
    waiting.join(5)
    assert taken == [None]
    assert schedule.pause(60)


def test_a_failure_that_does_not_matter_any_more_stops_nothing() -> None:
    """Another server drew the picture, or the limits passed it."""
    schedule = Schedule(range(9), wanted=lambda index: True, ahead=9)
    assert [schedule.take("a:1"), schedule.take("a:1")] == [0, 1]
    schedule.fail(0, ValueError("zero"))
    schedule.deliver(0, PICTURE)
    assert schedule.wait_for(0, seconds=5) is PICTURE
    schedule.fail(1, ValueError("one"))
    schedule.move_to(2)
    assert schedule.take("a:1") == 2


def test_what_was_not_wanted_at_its_turn_is_drawn_on_demand() -> None:
    schedule = Schedule(range(5), wanted=lambda index: index not in refused, ahead=10)
    refused = {0, 1, 4}
    assert [schedule.take("a:1") for _ in range(2)] == [2, 3]
    refused.clear()
    for index in (1, 1, 2, 4):  # drawn once; is being drawn; has not had its turn
        schedule.demand(index)
    assert [schedule.take("a:1") for _ in range(2)] == [1, 4]
    schedule.fail(3, ValueError("three"))
    schedule.demand(3)
    with pytest.raises(ValueError, match="three"):
        schedule.wait_for(3, seconds=5)
