"""When metrics are reported: on demand, and every second, since a queue grows while nothing is answered."""

from __future__ import annotations

import threading
from collections.abc import Callable

__all__ = ["Report", "Reporter"]

Report = Callable[[], None]
_EVERY_SECONDS = 1.0


class Reporter:
    """Calls a report; no error of it reaches the caller."""

    def __init__(self, make: Callable[[], Report | None], *, failed: Callable[[], None]) -> None:
        """`make` gives the report, or None while there can be none yet. `failed` is called in the handler of
        an error.
        """
        self._make = make
        self._failed = failed
        self._made: Report | None = None
        self._lock = threading.Lock()
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run, name="metrics", daemon=True)

    def start(self) -> None:
        """Report every second from now."""
        self._thread.start()

    def report(self) -> None:
        """Report now."""
        try:
            with self._lock:
                if self._stop.is_set():
                    return
                if self._made is None:
                    self._made = self._make()
                if self._made is not None:
                    self._made()
        except Exception:  # the backend's own error class
            self._failed()

    def close(self) -> None:
        """Report no more, and remove the metrics from what Triton shows.

        WAR: Triton 2.51 ends the process of a model with a segmentation fault where a metric outlives
        `finalize`. Then the metric stays with its last value: after `intaglio reload` a LoRA of the old build
        was shown as resident.
        """
        self._stop.set()
        if self._thread.is_alive():
            self._thread.join()
        with self._lock:
            self._made = None

    def _run(self) -> None:
        self.report()
        while not self._stop.wait(_EVERY_SECONDS):
            self.report()
