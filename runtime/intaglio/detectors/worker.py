"""`python -m intaglio.detectors.worker`: the process of a server that runs its detectors.

Its standard input is a socket (`intaglio.detectors.messages`). The process ends with status 0 when no
photograph came for the seconds that its setting names, or when the server is gone. What libraries print goes
to the standard error.
"""

from __future__ import annotations

import logging
import os
import signal
import socket
import time
from typing import Any, Final

from intaglio.detectors.annotate import Annotator
from intaglio.detectors.cache import DetectionCache
from intaglio.detectors.messages import Disconnected, Question, Setting, receive, send
from intaglio.detectors.opening import choose_detector
from intaglio.errors import ConfigError, IntaglioError, InvalidRequest

__all__ = ["main"]

_OVERTIME: Final = 5.0
"""Seconds beyond the deadline after which a process ends itself whose server is gone."""
_log = logging.getLogger("intaglio.detectors")


def main() -> None:
    """Answer until nobody asks."""
    logging.basicConfig(format="%(name)s: %(message)s", level=logging.WARNING)
    connection = socket.socket(fileno=os.dup(0))
    os.dup2(2, 1)  # a library that prints must not write into anything else
    with connection:
        try:
            head, _ = receive(connection)
            answers = _Answers(Setting.model_validate(head))
            _serve(connection, answers)
        except (Disconnected, TimeoutError):
            return


def _serve(connection: socket.socket, answers: _Answers) -> None:
    """Raises TimeoutError when no photograph came for the setting's seconds."""
    while True:
        head, photo = receive(connection, until=time.monotonic() + answers.setting.idle_seconds)
        question = Question.model_validate(head)
        # A server that is still there ends this process at the deadline. The alarm is for one that is gone.
        signal.setitimer(signal.ITIMER_REAL, question.seconds + _OVERTIME)
        answer, pixels = answers(question.detector, photo, name=question.name)
        send(connection, answer, pixels)
        signal.setitimer(signal.ITIMER_REAL, 0)


class _Answers:
    """The detectors, each opened by the first photograph that needs it."""

    def __init__(self, setting: Setting) -> None:
        self.setting = setting
        self._opened: dict[str, Annotator] = {}

    def __call__(self, detector: str, photo: bytes, *, name: str) -> tuple[dict[str, Any], bytes]:
        """Head and bytes of the answer."""
        try:
            found = self._annotator(detector)(photo, name=name)
        except InvalidRequest as error:
            refused = {"field": error.field, "problem": error.problem, "allowed": error.allowed}
            return {"refused": refused}, b""
        except IntaglioError as error:
            return {"failed": str(error), "configuration": isinstance(error, ConfigError)}, b""
        except Exception as error:
            _log.exception("detector %s failed", detector)
            shown = f"{type(error).__name__}: {error}; the server's log has the traceback"
            return {"failed": f"detector {detector}: {name}: {shown}", "configuration": False}, b""
        people = found.detection.people
        head = {
            "shape": found.detection.map.shape,
            "people": None if people is None else people.tolist(),
            "classes": found.detection.classes,
            "cached": found.cached,
        }
        return head, found.detection.map.tobytes()

    def _annotator(self, detector: str) -> Annotator:
        if detector not in self._opened:
            chosen = choose_detector(detector, self.setting.detectors)
            cache = DetectionCache(self.setting.cache)
            self._opened[detector] = Annotator(chosen, cache, most_pixels=self.setting.most_pixels)
        return self._opened[detector]


if __name__ == "__main__":
    main()
