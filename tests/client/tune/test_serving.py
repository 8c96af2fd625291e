"""Which server draws, and how a run ends."""

from __future__ import annotations

import os
import signal
from contextlib import ExitStack
from pathlib import Path

import pytest

from intaglio.errors import Unavailable
from intaglio.exit_codes import TERMINATED
from intaglio_client.tune.serving import Asked, served, stopped_by_signals

from .deployments import deployment


def test_an_address_without_a_server_is_named(tmp_path: Path) -> None:
    with (
        pytest.raises(Unavailable, match=r"no server is ready at 127\.0\.0\.1:9; without --url"),
        served(deployment(tmp_path), Asked("127.0.0.1:9"), report=print),
    ):
        pass


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
