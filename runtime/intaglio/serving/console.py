"""What `intaglio serve` prints."""

from __future__ import annotations

import contextlib
import errno
import os
from collections.abc import Iterator
from typing import IO, Any, Final, cast

from rich.console import Console
from rich.status import Status

from intaglio.telemetry.event_log import EventLog, LogFormat

__all__ = ["StatusLine", "lasting_console", "lasting_output"]


def lasting_console(stream: IO[str], *, quiet: bool = False) -> Console:
    """A console on `stream`. Its reader may leave, as a terminal that hangs up or the program behind a `|`
    does: the server goes on.
    """
    return Console(file=lasting_output(stream), highlight=False, soft_wrap=True, quiet=quiet)


def lasting_output(stream: IO[str]) -> IO[str]:
    """`stream`, whose reader may leave in the same way."""
    return cast(IO[str], _LastingOutput(stream))


_LASTING: Final = {"ready": "green", "stopped": ""}
"""Texts that stay on a terminal, and their style."""


class StatusLine:
    """One line of status. A terminal shows it in place; elsewhere each change is a line of its own, without
    the progress of a start.
    """

    def __init__(self, console: Console, *, log_format: LogFormat = "text") -> None:
        """With `json` each change is a line of the log, as those of the stages are."""
        self._console = console
        self._log_format = log_format
        self._status: Status | None = None

    def __enter__(self) -> StatusLine:
        return self

    def __exit__(self, *_: object) -> None:
        self._end()

    def show(self, text: str) -> None:
        """Show `text`; "ready" and "stopped" end the line."""
        if self._log_format == "json":
            if not text.startswith("starting"):
                self._tell("status", message=text)
        elif not self._console.is_terminal:
            if not text.startswith("starting"):
                self._console.print(text)
        elif text in _LASTING:
            self._end()
            self._console.print(text, style=_LASTING[text])
        elif self._status is None:
            self._status = self._console.status(text)
            self._status.start()
        else:
            self._status.update(text)

    def _tell(self, event: str, **fields: Any) -> None:
        """Write a line of the log as JSON."""
        if not self._console.quiet:
            log = EventLog(
                stage="serve", format="json", write=lambda line: self._console.file.write(line.decode())
            )
            log("info", event, **fields)
            self._console.file.flush()

    def _end(self) -> None:
        if self._status is not None:
            self._status.stop()
            self._status = None


class _LastingOutput:
    """What is written after the reader has left is lost, and raises nothing."""

    def __init__(self, stream: IO[str]) -> None:
        self._stream = stream

    def write(self, text: str) -> int:
        """Write `text`; its length."""
        with self._while_read():
            self._stream.write(text)
        return len(text)

    def flush(self) -> None:
        """Hand on what was written."""
        with self._while_read():
            self._stream.flush()

    def __getattr__(self, name: str) -> Any:
        return getattr(self._stream, name)

    @contextlib.contextmanager
    def _while_read(self) -> Iterator[None]:
        try:
            yield
        except OSError as error:
            if error.errno not in (errno.EPIPE, errno.EIO):
                return  # a full disk may have room later
            nowhere = os.open(os.devnull, os.O_WRONLY)
            os.dup2(nowhere, self._stream.fileno())  # what is buffered can still be flushed, also at the end
            os.close(nowhere)
