"""When a request is sent again, and after which pause."""

from __future__ import annotations

import pytest

from intaglio.errors import (
    Cancelled,
    DeadlineExceeded,
    IntaglioError,
    InvalidRequest,
    QueueFull,
    Stopping,
    SwapFailed,
    Unavailable,
)
from intaglio_client import NotServed, Retries, ServerError, Unreachable
from intaglio_client.connections.retries import is_retried


@pytest.mark.parametrize(
    ("error", "without_seed", "with_seed"),
    [
        (QueueFull("full"), True, True),
        (Unreachable("refused"), True, True),
        (Stopping("not begun"), True, True),
        (Unavailable("Socket closed"), False, True),
        (SwapFailed("loras: cannot apply x"), False, False),
        (NotServed("unknown model"), False, False),
        (ServerError("broken"), False, False),
        (DeadlineExceeded("late"), False, False),
        (Cancelled("gone"), False, False),
        (InvalidRequest("steps", "0", allowed="1 to 150"), False, False),
    ],
)
def test_only_what_draws_no_picture_twice_is_sent_again(
    error: IntaglioError, without_seed: bool, with_seed: bool
) -> None:
    assert is_retried(error, is_repeatable=False) is without_seed
    assert is_retried(error, is_repeatable=True) is with_seed


def test_pauses_grow_to_the_longest_and_are_spread() -> None:
    retries = Retries(most=9, first=1.0, longest=5.0)
    longest = [retries.pause(round_, hint=None, share=1.0) for round_ in range(1, 6)]
    shortest = [retries.pause(round_, hint=None, share=0.0) for round_ in range(1, 6)]
    assert longest == [1, 2, 4, 5, 5]
    assert shortest == [0.5, 1, 2, 2.5, 2.5]


def test_a_hint_of_the_server_is_kept() -> None:
    retries = Retries(first=0.1, longest=5.0)
    assert retries.pause(1, hint=4.0, share=0.0) == 4
    assert retries.pause(1, hint=4.0, share=1.0) == 5
    assert retries.pause(1, hint=5.1, share=0.0) is None, "the caller decides about such a long time"


@pytest.mark.parametrize("values", [{"most": -1}, {"first": 0.0}, {"first": 2.0, "longest": 1.0}])
def test_impossible_values_are_refused(values: dict[str, float]) -> None:
    with pytest.raises(InvalidRequest, match=r"^retries: "):
        Retries(**values)  # type: ignore[arg-type]
