"""The clock of a real server jumps by an hour, forward and back, while it draws, queues and keeps deadlines.

Debian's libfaketime is loaded into Triton and all of its Python processes, and the monotonic clock stays as
it is. `intaglio serve` itself has the machine's clock: libfaketime 0.9.10 makes Python's `time.sleep` fail
(EINVAL), which the supervisor uses and the models do not. `tests/runtime/test_clocks.py` reads its source.
"""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import replace
from datetime import datetime
from pathlib import Path
from typing import Any, Final

import pytest

from intaglio.contract.config import Deployment
from intaglio.serving.endpoints import Endpoints
from intaglio.serving.server import Server
from intaglio.whole_files import write_whole

from ..leavings import nothing_left, own_servers
from ..serving.conftest import miniature
from ..serving.streams import Ended, pixels_of, streamed, unary
from ..serving.test_metrics import metrics_of
from .tools import program

pytestmark = [pytest.mark.ship, pytest.mark.usefixtures("nothing_left")]
__all__ = ["miniature", "nothing_left", "own_servers"]

ASKED: Final[dict[str, Any]] = {"prompt": "a person in a room", "width": 256, "height": 192, "seed": 5}
HOUR: Final = 3600
JUMPS: Final = (HOUR, -HOUR, 0, 24 * HOUR, 0)
"""From the machine's clock, one after another."""
HOURS: Final = {seconds // HOUR for seconds in JUMPS}
BETWEEN: Final = 0.7
"""Seconds from one jump to the next."""
PICTURES: Final = 6
STEPS: Final = 30
DEADLINE: Final = 4.0
"""Seconds of the request that cannot be done by then; it falls between jumps."""


def library() -> Path:
    """The one of `faketime` for programs with threads."""
    prefix = Path(program("faketime", "Debian's faketime")).resolve().parents[1]
    (found,) = prefix.glob("lib/*/faketime/libfaketimeMT.so.1")
    return found


class Clock:
    """The real-time clock of the server's processes."""

    def __init__(self, folder: Path) -> None:
        self._file = folder / "clock"
        self.shift(0)

    def shift(self, seconds: int) -> None:
        """It differs from the machine's by `seconds` from now on."""
        write_whole(self._file, f"{seconds:+d}\n".encode())

    @property
    def environment(self) -> dict[str, str]:
        return {
            "LD_PRELOAD": str(library()),
            "FAKETIME_TIMESTAMP_FILE": str(self._file),
            "FAKETIME_DONT_FAKE_MONOTONIC": "1",
            "FAKETIME_NO_CACHE": "1",
            "FAKETIME_DISABLE_SHM": "1",  # it would leave segments in /dev/shm
        }

    @contextmanager
    def jumping(self) -> Iterator[None]:
        """All `JUMPS`, again and again, within the block."""
        over = threading.Event()

        def run() -> None:
            while True:
                for seconds in JUMPS:
                    self.shift(seconds)
                    if over.wait(BETWEEN):
                        return

        thread = threading.Thread(target=run)
        thread.start()
        try:
            yield
        finally:
            over.set()
            thread.join()
            self.shift(0)


@pytest.fixture
def clock(tmp_path: Path) -> Clock:
    return Clock(tmp_path)


@pytest.fixture
def server(miniature: Deployment, clock: Clock, tmp_path: Path) -> Iterator[Server]:
    made = Server(miniature, endpoints=Endpoints(), log=tmp_path / "triton.log")
    told = {**made.settings.environment, **clock.environment, "INTAGLIO_LOG_FORMAT": "json"}
    made.settings = replace(made.settings, environment=told)
    with made:
        yield made


def hours_of(log: Path) -> set[int]:
    """By how many hours the clocks of the stages differed from this machine's."""
    now = time.time()
    whole = log.read_text().rpartition("\n")[0]
    lines = [json.loads(line) for line in whole.splitlines() if line.startswith('{"time"')]
    return {round((datetime.fromisoformat(line["time"]).timestamp() - now) / HOUR) for line in lines}


def test_nothing_is_late_or_lost_where_the_clock_jumps(server: Server, clock: Clock) -> None:
    url = server.grpc_url
    picture = ASKED | {"steps": STEPS}
    right = pixels_of(unary(url, **picture))
    with ThreadPoolExecutor(PICTURES + 2) as pool, clock.jumping():
        began = time.monotonic()
        late = pool.submit(timed, url, **ASKED, steps=150, slice_steps=1, deadline=DEADLINE, num_images=4)
        time.sleep(BETWEEN)  # so that it is the first, and every other one waits
        streams = [
            pool.submit(
                timed, url, **picture, slice_steps=1, preview=64, deadline=300.0, queue_timeout=300.0,
                priority="batch",
            )
            for _ in range(PICTURES)
        ]  # fmt: skip
        quick = pool.submit(unary, url, **picture, queue_timeout=300.0)
        ended = [stream.result()[0] for stream in streams]
        assert pixels_of(quick.result()) == right
        overdue, seconds = late.result()
        more = drawn_until_logged(server, HOURS)
        took = time.monotonic() - began
    for stream in ended:
        assert stream.outcome == "result", stream.error
        assert pixels_of(stream.images) == right
        assert [event["step"] for event in stream.of("progress")] == list(range(STEPS + 1))
        left = [event["seconds_left"] for event in stream.of("progress")]
        assert 0 <= min(left) <= max(left) < HOUR
    assert overdue.outcome == "deadline", overdue.error
    assert DEADLINE <= seconds < DEADLINE + 3, "neither an hour early nor an hour late"
    check_metrics(metrics_of(server), took=took, more=more)


def drawn_until_logged(server: Server, hours: set[int]) -> int:
    """How many pictures of one step it took until the log has lines of all `hours`."""
    until = time.monotonic() + 30
    drawn = 0
    while not hours <= (seen := hours_of(server.log)):
        assert time.monotonic() < until, f"its clock has jumped; hours in the log: {sorted(seen)}"
        unary(server.grpc_url, **ASKED, steps=1)
        drawn += 1
    return drawn


def timed(url: str, **asked: Any) -> tuple[Ended, float]:
    """A stream, and how many seconds it took."""
    began = time.monotonic()
    return streamed(url, **asked), time.monotonic() - began


def check_metrics(found: dict[str, float], *, took: float, more: int) -> None:
    """Each request once, and no seconds that did not pass."""
    assert found["requests_total"] == 1 + PICTURES + 2 + more
    assert found["requests_finished_total"] == 1 + PICTURES + 1 + more
    assert found["requests_late_total"] == 1
    assert found["requests_failed_total"] == found["requests_cancelled_total"] == 0
    assert found["requests_refused_total"] == 0
    assert (found["queue_depth"], found["running"], found["queue_oldest_wait_seconds"]) == (0, 0, 0)
    assert 0 < found["queue_longest_wait_seconds"] <= took
    assert 0 < found["queue_seconds_total"] <= took * (PICTURES + 2)
    assert 0 < found["step_seconds_total"] <= found["compute_seconds_total"]
    assert found["step_seconds"] < HOUR
