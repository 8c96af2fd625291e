"""`intaglio generate` with a server in this process: progress, Ctrl-C, older servers, files, headers."""

from __future__ import annotations

import json
import subprocess
import sys
import threading
from pathlib import Path
from typing import Any

import grpc
import pytest

from intaglio.cli import main
from intaglio.exit_codes import TERMINATED
from intaglio_client.address import URL_VARIABLE

from ...terminals import Terminal, visible
from ..fake_server import METADATA, Refusal, fake_server, picture, stream_of

GENERATE = [sys.executable, "-m", "intaglio", "generate"]
OLDER = Refusal(grpc.StatusCode.NOT_FOUND, "Request for unknown model: 'sdxl_stream' is not found")


def test_a_pipe_gets_lines_and_the_result(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with fake_server(stream_of()) as server:
        code = main(["generate", "a fox", "--url", server.url, "--out", str(tmp_path / "x.png"), "--json"])
    captured = capsys.readouterr()
    assert code == 0
    assert captured.err.splitlines()[0] == "waiting: 1 before it"
    (made,) = json.loads(captured.out)["images"]
    assert (made["path"], made["seed"]) == (str(tmp_path / "x.png"), 7)
    assert (tmp_path / "x.png").read_bytes() == b"image 0"
    assert server.inputs(0)["deadline"] == 300
    assert "preview" not in server.inputs(0), "nothing could show it"


def test_an_older_server_is_asked_in_one_call(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for options, says in ([], ""), (["-v"], "the server does not stream"):
        with fake_server(OLDER, picture) as server:
            out = str(tmp_path / f"{len(options)}.png")
            assert main(["generate", "a fox", "--url", server.url, "--out", out, *options]) == 0
        assert [one.model_name for one in server.requests] == ["sdxl_stream", "sdxl"]
        errors = capsys.readouterr().err
        assert says in errors
        assert bool(errors) is bool(says)


@pytest.mark.parametrize("quiet", [False, True])
def test_a_terminal_shows_a_bar_and_cleans_up(tmp_path: Path, quiet: bool) -> None:
    with fake_server(stream_of()) as server:
        command = [*GENERATE, "a fox", "--url", server.url, "--out", "x.png", *(["-q"] if quiet else [])]
        with Terminal(command, folder=tmp_path) as terminal:
            assert terminal.end() == 0, terminal.written
    shown = list(visible(terminal.written))
    bars = [line for line in shown if line.endswith("step 2 of 4, 0.2 s left, 3 waiting")]
    if quiet:
        assert shown == ["x.png"]
        return
    assert bars
    assert any(line.endswith("waiting: 1 before it") for line in shown)
    last = terminal.written.rindex("\x1b[J")
    assert list(visible(terminal.written[last:])) == [shown[-1]], "the bar is gone"
    assert shown[-1].startswith("x.png  seed 7")
    assert terminal.written.count("\x1b[?25l") == terminal.written.count("\x1b[?25h") == 1


def test_sigterm_cancels_on_the_server_and_shows_the_cursor(tmp_path: Path) -> None:
    held = threading.Event()
    with fake_server(stream_of(hold=held)) as server:
        with Terminal([*GENERATE, "a fox", "--url", server.url], folder=tmp_path) as terminal:
            terminal.wait_for("step 1 of 4")
            terminal.process.terminate()
            assert terminal.end() == TERMINATED, terminal.written
        assert server.ended.wait(5)
        held.set()
    assert terminal.written.endswith("\x1b[J\x1b[?25h")
    assert not list(tmp_path.iterdir())


def test_a_preview_that_cannot_be_read_is_one_line(tmp_path: Path) -> None:
    kitty = {"KITTY_WINDOW_ID": "1"}
    with fake_server(stream_of()) as server:
        command = [*GENERATE, "a fox", "--url", server.url, "--preview"]
        with Terminal(command, folder=tmp_path, environment=kitty) as terminal:
            assert terminal.end() == 1, terminal.written
    said = terminal.written[terminal.written.rindex("\x1b[?25h") :]
    (line,) = visible(said)
    assert line.startswith(
        "intaglio generate: the server sent a preview that cannot be read: cannot identify"
    )


def test_ctrl_c_cancels_on_the_server(tmp_path: Path) -> None:
    held = threading.Event()
    with fake_server(stream_of(hold=held)) as server:
        with Terminal([*GENERATE, "a fox", "--url", server.url], folder=tmp_path) as terminal:
            terminal.wait_for("step 1 of 4")
            terminal.press("\x03")
            assert terminal.end() == 130, terminal.written
        assert server.ended.wait(5)
        held.set()
    assert list(visible(terminal.written))[-1] == "cancelled, also on the server"
    assert not list(tmp_path.iterdir())


def test_ctrl_c_with_an_older_server_says_what_becomes_of_the_request(tmp_path: Path) -> None:
    held = threading.Event()

    def slow(context: Any) -> Any:
        held.wait(30)
        yield from picture(context)

    with fake_server(OLDER, slow) as server:
        command = [*GENERATE, "a fox", "--url", server.url]
        process = subprocess.Popen(command, cwd=tmp_path, stderr=subprocess.PIPE, text=True)
        while len(server.requests) < 2:
            assert process.poll() is None
        process.send_signal(2)
        _, errors = process.communicate(timeout=30)
        held.set()
    assert process.returncode == 130
    assert errors == "stopped waiting; the server still finishes a request that it has\n"
    assert not list(tmp_path.iterdir())


def test_no_file_is_overwritten_unless_asked(tmp_path: Path, monkeypatch: Any, capsys: Any) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "x.png").write_bytes(b"mine")
    with fake_server(stream_of()) as server:
        ask = ["generate", "a fox", "-q", "--url", server.url]
        assert main([*ask, "--out", "x.png"]) == 2
        assert "out: x.png exists; allowed: another name, or --force" in capsys.readouterr().err
        assert not server.requests, "refused before anything is asked for"
        assert (tmp_path / "x.png").read_bytes() == b"mine"
        assert main([*ask, "--out", "x.png", "--force"]) == 0
        assert (tmp_path / "x.png").read_bytes() == b"image 0"
        assert [main(ask), main(ask)] == [0, 0]
    assert sorted(path.name for path in tmp_path.iterdir()) == ["out-2.png", "out.png", "x.png"]


def test_options_of_the_connection_and_of_the_queue_are_sent(tmp_path: Path) -> None:
    options = ["--header", "Authorization: Bearer a:b", "--priority", "batch", "--queue-timeout", "9"]
    options += ["--deadline", "20", "--out", str(tmp_path / "x.png")]
    with fake_server(stream_of()) as server:
        code = main(["generate", "a fox", "-q", "--url", "127.0.0.1:9", "--url", server.url, *options])
    assert code == 0
    sent = {"prompt": "a fox", "output_format": "png", "priority": "batch", "queue_timeout": 9.0}
    assert server.inputs(0).items() >= sent.items()
    assert server.inputs(0)["deadline"] <= 20
    assert server.headers[0]["authorization"] == "Bearer a:b"


def test_the_environment_may_name_several_servers(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with fake_server(stream_of()) as server:
        monkeypatch.setenv(URL_VARIABLE, f"127.0.0.1:9 {server.url}")
        assert main(["generate", "a fox", "-q", "--out", str(tmp_path / "x.png")]) == 0
    assert len(server.requests) == 1


@pytest.mark.parametrize(
    ("options", "says"),
    [
        (["--header", "Bearer s3cret"], "header: no colon; allowed: name: value"),
        (["--tls-ca", "no-such.pem"], "tls.ca: no-such.pem: No such file"),
        (["--tls-cert", __file__], "tls.key: missing"),
        (["--priority", "high"], "priority: 'high' is unknown; allowed: one of interactive, batch"),
        (["--queue-timeout", "0"], "queue_timeout: 0.0 is out of range"),
    ],
)
def test_wrong_options_are_named(options: list[str], says: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["generate", "a fox", *options]) == 2
    errors = capsys.readouterr().err
    assert says in errors
    assert "s3cret" not in errors


def test_warnings_of_the_server_come_after_the_bar(tmp_path: Path, capsys: Any, monkeypatch: Any) -> None:
    monkeypatch.setitem(METADATA, "warnings", ["a window holds no step"])
    with fake_server(stream_of()) as server:
        assert main(["generate", "a fox", "--url", server.url, "--out", str(tmp_path / "x.png")]) == 0
    assert capsys.readouterr().err.splitlines()[-1] == "a window holds no step"
