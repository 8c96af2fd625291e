"""What `intaglio serve` prints."""

from __future__ import annotations

import io
import json
import subprocess
import sys
import textwrap

from intaglio.serving.console import StatusLine, lasting_console


def test_a_reader_that_leaves_does_not_end_the_server() -> None:
    """Also at the end, when Python flushes what is buffered."""
    program = textwrap.dedent("""
        import sys
        from intaglio.serving.console import StatusLine, lasting_console

        console = lasting_console(sys.stdout)
        with StatusLine(console) as status:
            status.show("first")
            sys.stdout.flush()
            sys.stdin.readline()
            for _ in range(3):
                status.show("died; restart 1 of 5 in 1 s")
        console.print("stopped")
        print("supervised to the end", file=sys.stderr)
    """)
    pipe = subprocess.PIPE
    with subprocess.Popen(
        [sys.executable, "-c", program], stdin=pipe, stdout=pipe, stderr=pipe, text=True
    ) as process:
        assert process.stdout is not None
        assert process.stdin is not None
        assert process.stderr is not None
        assert process.stdout.readline() == "first\n"
        process.stdout.close()
        process.stdin.write("\n")
        process.stdin.close()
        assert process.stderr.read() == "supervised to the end\n"
        assert process.wait(20) == 0


def test_a_log_of_json_has_lines_of_json() -> None:
    """Without the progress of a start, and with `quiet` nothing."""
    printed = io.StringIO()
    for quiet in (False, True):
        console = lasting_console(printed, quiet=quiet)
        with StatusLine(console, log_format="json") as status:
            for text in (
                "starting Triton, 1 s; loaded: [nothing]",
                "died; restart [1] of 5",
                "ready",
                "stopped",
            ):
                status.show(text)
    lines = [json.loads(line) for line in printed.getvalue().splitlines()]
    assert [line["message"] for line in lines] == ["died; restart [1] of 5", "ready", "stopped"]
    assert {(line["stage"], line["event"], line["level"]) for line in lines} == {("serve", "status", "info")}
