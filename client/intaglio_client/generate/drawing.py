"""Asking a server for the images of a command, and showing meanwhile what happens."""

from __future__ import annotations

import contextlib
import logging
import os
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Final

import typer

from intaglio.command_output import Output
from intaglio.exit_codes import INTERRUPTED, TERMINATED
from intaglio.stop_signals import stopped_by_signals
from intaglio_client.client import Client
from intaglio_client.errors import NotServed
from intaglio_client.events import Result
from intaglio_client.generate.order import Question
from intaglio_client.image import Image
from intaglio_client.terminal.capabilities import has_sixels
from intaglio_client.terminal.display import Bar, Display, Lines, Silent
from intaglio_client.terminal.graphics import Graphics, graphics_of

__all__ = ["Watching", "display_of", "drawn", "notes_after"]

_PREVIEW_BLOCKS: Final = 96
"""Longest side of previews in pixels where a cell shows two of them."""
_PREVIEW: Final = 256
"""The same where the terminal shows pixels."""
_CANCELLED: Final = "cancelled, also on the server"
_STOPPED: Final = "stopped waiting; the server still finishes a request that it has"


@dataclass(frozen=True, slots=True)
class Watching:
    """How a request is watched."""

    display: Display
    preview: int | None = None
    """Longest side of previews in pixels; None: there are none."""
    deadline: float | None = None
    """Seconds that the server may take."""


def display_of(printed: Output, *, preview: bool, deadline: float | None) -> Watching:
    """A bar on a terminal, with previews where it can show them; elsewhere lines."""
    console = printed.progress
    if printed.quiet:
        return Watching(Silent(), deadline=deadline)
    if not console.is_terminal or console.is_dumb_terminal or console.legacy_windows:
        return Watching(Lines(console), deadline=deadline)
    graphics: Graphics | None = None
    if preview and console.color_system is not None:
        graphics = graphics_of(os.environ, has_sixels=has_sixels)
    size = None
    if graphics is not None:
        size = _PREVIEW_BLOCKS if graphics == "blocks" else _PREVIEW
    return Watching(Bar(console, graphics=graphics), size, deadline)


def drawn(client: Client, question: Question, watching: Watching, printed: Output) -> tuple[Image, ...]:
    """The images. Where the server cannot stream, they are asked for in one call.

    Raises:
        Exit: interrupted with Ctrl-C. What the server was told is said on stderr.
        SystemExit: ended with SIGTERM or a hang-up.
        IntaglioError: what the client raises.
    """
    stop_says = _CANCELLED
    try:
        with stopped_by_signals(code=TERMINATED), watching.display:
            watching.display.say(f"waiting for {client.url}")
            try:
                return _streamed(client, question, watching)
            except NotServed as error:
                _log.info("the server does not stream (%s), so there is no progress", error)
            stop_says = _STOPPED
            watching.display.say(f"waiting for {client.url}")
            return client.generate_batch(question.prompt, **question.parameters)
    except KeyboardInterrupt:
        printed.problem(stop_says)
        raise typer.Exit(INTERRUPTED) from None


def _streamed(client: Client, question: Question, watching: Watching) -> tuple[Image, ...]:
    stream = client.stream(
        question.prompt, preview=watching.preview, deadline=watching.deadline, **question.parameters
    )
    with stream:  # leaving it cancels the request
        for event in stream:
            if isinstance(event, Result):
                return event.images
            watching.display.show(event)
    raise AssertionError("a stream ends with its result or with an error")


@contextlib.contextmanager
def notes_after(printed: Output, *, verbose: bool) -> Iterator[None]:
    """Print what the client logs after the block, so that it does not break the bar: warnings, and with
    `verbose` everything that says why something was done.
    """
    logger = logging.getLogger("intaglio_client")
    notes = _Notes(logging.INFO if verbose else logging.WARNING)
    before = logger.level
    logger.addHandler(notes)
    logger.setLevel(notes.level)
    try:
        yield
    finally:
        logger.removeHandler(notes)
        logger.setLevel(before)
        for text in notes.texts:
            printed.note(text)


class _Notes(logging.Handler):
    """Keeps what is logged, each text once."""

    def __init__(self, level: int) -> None:
        super().__init__(level)
        self.texts: dict[str, None] = {}

    def emit(self, record: logging.LogRecord) -> None:
        self.texts.setdefault(record.getMessage())


_log = logging.getLogger(__name__)
