"""What a request shows of itself."""

from __future__ import annotations

import io

import PIL.Image
import pytest
from rich.console import Console

from intaglio_client import Event, Preview, Progress, Queued
from intaglio_client.terminal.display import Bar, Lines, described

from ...terminals import visible


def progress(step: int, **values: int) -> Progress:
    return Progress(step=step, steps=30, seconds=0.5, seconds_left=1.26, **values)


def small(colour: str, count: int = 1) -> Preview:
    buffer = io.BytesIO()
    PIL.Image.new("RGB", (32, 32), colour).save(buffer, "JPEG")
    return Preview(step=5, steps=30, images=(buffer.getvalue(),) * count)


def console(*, height: int = 30) -> tuple[Console, io.StringIO]:
    file = io.StringIO()
    made = Console(file=file, force_terminal=True, color_system="truecolor", width=80, height=height)
    return made, file


@pytest.mark.parametrize(
    ("event", "text"),
    [
        (Queued(place=0, waiting=4), "waiting: next"),
        (Queued(place=2, waiting=4), "waiting: 2 before it"),
        (progress(5), "step 5 of 30, 1.3 s left"),
        (progress(5, waiting=2), "step 5 of 30, 1.3 s left, 2 waiting"),
        (small("red"), ""),
    ],
)
def test_texts(event: Event, text: str) -> None:
    assert described(event) == text


def test_lines_come_once_a_second_at_most() -> None:
    now = 10.0
    file = io.StringIO()
    lines = Lines(Console(file=file, width=80), clock=lambda: now)
    with lines:
        for step in range(20):
            lines.show(progress(step))
            lines.show(small("red"))
            now += 0.25
    assert [line.split()[1] for line in file.getvalue().splitlines()] == ["0", "4", "8", "12", "16"]


def test_a_preview_keeps_its_room_and_the_bar_stays_below() -> None:
    made, file = console()
    with Bar(made, graphics="blocks") as bar:
        bar.show(progress(5))
        bar.show(small("red"))
        bar.show(progress(10))
        bar.show(small("blue"))
    written = file.getvalue()
    assert written.count("\n" * 20) == 1, "the room is made once"
    assert written.count("\x1b[20A") == 3, "two previews, and the end, which removes all of it"
    assert written.count("▀") == 2 * 20 * 40
    assert written.count("\x1b7") == written.count("\x1b8") == 2
    shown = list(visible(written[: written.index("\x1b7")]))
    assert shown[-1].endswith("step 5 of 30, 1.3 s left"), "the bar is there below the first preview"
    assert written.endswith("\x1b[J\x1b[?25h")


def test_kittys_picture_is_removed_at_the_end() -> None:
    made, file = console()
    with Bar(made, graphics="kitty") as bar:
        bar.show(small("red", count=2))
    assert "\x1b_Ga=d" in file.getvalue()
    made, file = console()
    with Bar(made, graphics="kitty") as bar:
        bar.show(progress(1))
    assert "\x1b_G" not in file.getvalue(), "there was none"


def test_a_terminal_that_is_too_low_shows_no_preview() -> None:
    made, file = console(height=3)
    with Bar(made, graphics="blocks") as bar:
        bar.show(small("red"))
    assert "▀" not in file.getvalue()


def test_without_graphics_previews_are_passed_over() -> None:
    made, file = console()
    with Bar(made) as bar:
        bar.show(small("red"))
    assert "▀" not in file.getvalue()


def test_an_address_is_shown_as_it_is() -> None:
    """Brackets with a word in them are no style."""
    made, file = console()
    with Bar(made) as bar:
        bar.say("waiting for [fe80::1]:8001")
    assert any(line.endswith("waiting for [fe80::1]:8001") for line in visible(file.getvalue()))
