"""A server's process of detectors: started by the first photograph, ended when it fails, hangs or is idle."""

from __future__ import annotations

import contextlib
import signal
import socket
import subprocess
import threading
import time
from collections.abc import Mapping
from types import TracebackType
from typing import Any, Final, Self

import numpy as np

from intaglio.detectors.annotate import Annotated
from intaglio.detectors.detection import Detection
from intaglio.detectors.messages import Disconnected, Question, Setting, receive, send
from intaglio.errors import ConfigError, DetectorFailed, InvalidRequest
from intaglio.imaging.openpose import people_from_values
from intaglio.interpreter import interpreter

__all__ = ["DetectorWorker"]

_MODULE: Final = "intaglio.detectors.worker"
_END_SECONDS: Final = 5.0
"""The longest that a process may take to end after its socket is closed."""


class DetectorWorker:
    """The process, with one photograph at a time. Entering starts nothing yet."""

    def __init__(self, setting: Setting) -> None:
        self._setting = setting
        self._turn = threading.Lock()
        self._running: _Running | None = None

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        with self._turn:
            self._end()

    @property
    def pid(self) -> int | None:
        """Process id; None while no process runs."""
        running = self._running
        return None if running is None or running.ended else running.pid

    def __call__(self, detector: str, photo: bytes, *, name: str, until: float) -> Annotated:
        """What the detector of id `detector` makes of the encoded `photo`, which errors call `name`.

        `until` is the time of `time.monotonic` at which the process is ended.

        Raises:
            InvalidRequest: as `Annotator` does.
            ConfigError: a file of the detector is missing, or holds another network.
            DetectorFailed: anything else; the next photograph gets a new process.
        """
        if not self._turn.acquire(timeout=max(0.0, until - time.monotonic())):
            raise _late(detector, name, "other photographs took all the time")
        try:
            if time.monotonic() >= until:  # the process may be well: only this photograph came too late
                raise _late(detector, name, "other photographs took all the time")
            return self._answer(detector, photo, name=name, until=until)
        finally:
            self._turn.release()

    def _answer(self, detector: str, photo: bytes, *, name: str, until: float) -> Annotated:
        for _ in range(2):
            try:
                running = self._started(until)
                question = Question(detector=detector, name=name, seconds=max(0.0, until - time.monotonic()))
                send(running.connection, question.model_dump(), photo, until=until)
                head, pixels = receive(running.connection, until=until)
            except TimeoutError:
                self._end()
                raise _late(detector, name, "its process did not answer in time and was ended") from None
            except Disconnected:
                code = self._end()
                if code != 0:  # 0: it was idle for so long that it ended while the photograph was sent
                    raise _died(detector, name, code) from None
            except OSError as error:
                self._end()
                problem = f"its process cannot be started: {error}"
                raise DetectorFailed(f"detector {detector}: {problem}") from error
            except BaseException:
                self._end()  # the next photograph must not get the rest of this answer
                raise
            else:
                return _annotated(head, pixels)
        raise _died(detector, name, 0)

    def _started(self, until: float) -> _Running:
        """The process, which is started where none runs."""
        if self._running is not None and self._running.ended:
            self._end()
        if self._running is None:
            self._running = _Running()
            send(self._running.connection, self._setting.model_dump(mode="json"), until=until)
        return self._running

    def _end(self) -> int:
        """End the process. Its exit code, or minus the signal; 0 where none runs."""
        running, self._running = self._running, None
        return 0 if running is None else running.end()


class _Running:
    """A started process and the socket to it."""

    def __init__(self) -> None:
        """Raises OSError where it cannot be started."""
        self.connection, theirs = socket.socketpair()
        try:
            self._process = subprocess.Popen(
                [interpreter(), "-P", "-m", _MODULE], stdin=theirs.fileno(), stdout=subprocess.DEVNULL
            )
        except BaseException:
            self.connection.close()
            raise
        finally:
            theirs.close()
        # A process that ends because it is idle must not stay in the table of processes.
        threading.Thread(target=self._process.wait, name="detectors", daemon=True).start()

    @property
    def pid(self) -> int:
        return self._process.pid

    @property
    def ended(self) -> bool:
        return self._process.poll() is not None

    def end(self) -> int:
        """Close the socket and kill the process, if it has not ended already. Its exit code."""
        self.connection.close()
        with contextlib.suppress(subprocess.TimeoutExpired):
            # One that closed the socket itself is about to end, with a code of its own.
            return self._process.wait(timeout=0.2)
        self._process.kill()
        return self._process.wait(timeout=_END_SECONDS)


def _annotated(head: Mapping[str, Any], pixels: bytes) -> Annotated:
    if "refused" in head:
        refused = head["refused"]
        raise InvalidRequest(refused["field"], refused["problem"], allowed=refused["allowed"])
    if "failed" in head:
        kind = ConfigError if head["configuration"] else DetectorFailed
        raise kind(head["failed"])
    people = head["people"]
    if people is not None:
        people = people_from_values(people)
    shown = np.frombuffer(pixels, np.uint8).reshape(head["shape"])
    return Annotated(Detection(shown, people, bool(head["classes"])), cached=bool(head["cached"]))


def _late(detector: str, name: str, why: str) -> DetectorFailed:
    allowed = "a smaller picture, or more seconds in detector_process.deadline_seconds of the deployment"
    return DetectorFailed(f"detector {detector}: {name}: {why}; allowed: {allowed}")


def _died(detector: str, name: str, code: int) -> DetectorFailed:
    how = f"ended with status {code}"
    if code < 0:
        with contextlib.suppress(ValueError):
            how = f"was killed by {signal.Signals(-code).name}"
    again = "the next photograph gets a new process, and the server's log may say more"
    return DetectorFailed(f"detector {detector}: its process {how} while it read {name}; {again}")
