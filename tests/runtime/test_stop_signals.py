"""Signals end a command in order."""

from __future__ import annotations

import os
import signal
import threading
from contextlib import ExitStack

import pytest

from intaglio.exit_codes import TERMINATED
from intaglio.stop_signals import stopped_by_signals


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGHUP])
def test_a_signal_ends_the_block_in_order(number: signal.Signals) -> None:
    before = signal.getsignal(number)
    ended: list[bool] = []

    def stopped() -> None:
        with stopped_by_signals(code=TERMINATED), ExitStack() as stack:
            stack.callback(ended.append, True)
            os.kill(os.getpid(), number)

    with pytest.raises(SystemExit) as raised:
        stopped()
    assert raised.value.code == TERMINATED
    assert ended == [True]
    assert signal.getsignal(number) is before


def test_a_hang_up_that_is_ignored_stays_so() -> None:
    before = signal.signal(signal.SIGHUP, signal.SIG_IGN)
    try:
        with stopped_by_signals(code=TERMINATED):
            os.kill(os.getpid(), signal.SIGHUP)
    finally:
        signal.signal(signal.SIGHUP, before)


def test_a_thread_hears_of_no_signal() -> None:
    before = signal.getsignal(signal.SIGTERM)
    seen: list[object] = []

    def run() -> None:
        with stopped_by_signals(code=TERMINATED):
            seen.append(signal.getsignal(signal.SIGTERM))

    thread = threading.Thread(target=run)
    thread.start()
    thread.join()
    assert seen == [before]
