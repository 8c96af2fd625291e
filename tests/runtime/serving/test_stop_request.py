"""A request to stop, from a thread and from a signal handler."""

from __future__ import annotations

import subprocess
import sys
import textwrap
import threading
import time

from intaglio.serving.stop_request import StopRequest


def test_a_request_ends_the_waiting_and_stays() -> None:
    stop = StopRequest()
    assert not stop.wait(0.01)
    threading.Timer(0.05, stop.make).start()
    began = time.monotonic()
    assert stop.wait(20)
    assert time.monotonic() - began < 10
    assert stop.made
    assert stop.wait(20), "again without a wait"


def test_a_signal_may_come_at_any_moment_of_the_waiting() -> None:
    """`threading.Event.set` in the handler waits for ever for the lock of the wait that it interrupts.

    A trace function raises the signal at each line that Python runs in the wait, one after another.
    """
    program = textwrap.dedent("""
        import signal, sys
        from intaglio.serving.stop_request import StopRequest

        lines = handled = 0

        def handle(number, frame):
            global handled
            stop.make()
            handled += 1

        def trace(frame, event, argument):
            global lines
            if event == "line" and frame.f_code.co_name != "handle":
                lines += 1
                if lines == moment:
                    sys.settrace(None)
                    signal.raise_signal(signal.SIGUSR1)
            return trace

        signal.signal(signal.SIGUSR1, handle)
        moment = 0
        while handled == moment:
            moment, lines, stop = moment + 1, 0, StopRequest()
            sys.settrace(trace)
            stop.wait(0.001)
            sys.settrace(None)
        assert handled > 3, handled
    """)
    subprocess.run([sys.executable, "-c", program], check=True, timeout=20)
