"""How a command ends that is stopped."""

from __future__ import annotations

import os
import signal
from contextlib import ExitStack

import pytest

from intaglio.exit_codes import TERMINATED
from intaglio.termination import stopped_by_signals


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGHUP])
def test_a_signal_ends_the_block_in_order(number: signal.Signals) -> None:
    before = signal.getsignal(number)
    ended: list[bool] = []

    def stopped() -> None:
        with stopped_by_signals(), ExitStack() as stack:
            stack.callback(ended.append, True)
            os.kill(os.getpid(), number)

    with pytest.raises(SystemExit) as raised:
        stopped()
    assert raised.value.code == TERMINATED
    assert ended == [True]
    assert signal.getsignal(number) is before
