"""NVIDIA's perf_analyzer: whether it runs here, what this version can do, and one run of it.

Newer versions stop after a number of requests (`--request-count`). The one in tritonclient 2.45 cannot: it
measures windows of a number of requests until three of them agree. So it is asked for three windows of a
third of the requests each, whatever they show. Either way the first requests are the warm-up.
"""

from __future__ import annotations

import json
import math
import re
import subprocess
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from intaglio.contract.config import Execution
from intaglio.errors import IntaglioError, single_line
from intaglio.serving.perf_analyzer import PerfAnalyzer, find_perf_analyzer
from intaglio_client.bench.runs import Run, arrivals, input_data

__all__ = ["DEFAULT_FOLDER", "Files", "Tool", "find_tool"]

DEFAULT_FOLDER: Final = Path("build/tools/perf_analyzer")
_WINDOWS: Final = 3
"""As many as the old binary compares."""
_ANY_CHANGE: Final = "999"
"""Percent: three windows are enough, whatever they show."""
_OVERTAKES: Final[int] = Execution.model_fields["overtakes"].default
_REQUEST_COUNT: Final = re.compile(r"^\s*--request-count\b", re.MULTILINE)
_ASKING_SECONDS: Final = 30.0
_SLACK: Final = 20.0
"""A run that takes as many times as long as expected has stopped working."""
_LEAST_SECONDS: Final = 300.0


@dataclass(frozen=True)
class Files:
    """What a run reads and writes: `FOLDER/NAME.KIND`."""

    folder: Path
    name: str

    def of(self, kind: str) -> Path:
        """The file of one kind, such as `csv`."""
        return self.folder / f"{self.name}.{kind}"


@dataclass(frozen=True)
class Tool:
    """A perf_analyzer that runs here."""

    found: PerfAnalyzer
    version: str
    counts_requests: bool
    """Whether it has `--request-count`."""

    @property
    def mode(self) -> str:
        """How it decides when to stop, for the report."""
        return "request-count" if self.counts_requests else "count_windows"

    def command(self, run: Run, url: str, files: Files) -> list[str]:
        """The command line of `run` on the server at `url`."""
        parts = [str(self.found.binary), "-m", run.model.name, "-u", url, "-i", "grpc", "--async"]
        # One thread sends all requests, so they go out in the order of the data.
        parts += ["--max-threads", "1", "--input-data", str(files.of("input.json"))]
        if run.kind == "streaming":
            parts.append("--streaming")
        if run.kind == "open":
            # Its own Poisson arrivals are a schedule of ten seconds, drawn once and repeated.
            parts += ["--request-intervals", str(files.of("intervals"))]
        else:
            parts += ["--concurrency-range", str(run.concurrency)]
        if self.counts_requests:
            # Those of its own warm-up would not be in the export, and might not be the first of the data.
            parts += ["--request-count", str(run.total)]
        else:
            window = math.ceil((run.total + _overtaking(run)) / _WINDOWS)
            parts += ["--measurement-mode", "count_windows", "--measurement-request-count", str(window)]
            parts += ["--stability-percentage", _ANY_CHANGE, "--max-trials", str(_WINDOWS)]
        parts += ["-f", str(files.of("csv")), "--verbose-csv"]
        return [*parts, "--profile-export-file", str(files.of("export.json"))]

    def run(self, run: Run, url: str, files: Files, *, expected: float) -> None:
        """Measure `run`. Its CSV, its export and what it printed are among `files` afterwards.

        `expected` is about how many seconds the run takes.

        Raises:
            IntaglioError: it failed, or is still not over after many times as long; says what it said.
        """
        files.folder.mkdir(parents=True, exist_ok=True)
        files.of("input.json").write_text(json.dumps(input_data(run.asked)), encoding="utf-8")
        if run.kind == "open":
            gaps = arrivals(run.value, run.total)
            files.of("intervals").write_text("".join(f"{gap}\n" for gap in gaps), encoding="utf-8")
        command = self.command(run, url, files)
        limit = max(_LEAST_SECONDS, _SLACK * expected)
        with files.of("log").open("w", encoding="utf-8") as log:
            try:
                done = subprocess.run(
                    command,
                    env=dict(self.found.environment),
                    stdout=log,
                    stderr=subprocess.STDOUT,
                    timeout=limit,
                    check=False,
                )
            except subprocess.TimeoutExpired as error:
                raise IntaglioError(f"{run.name}: perf_analyzer is not over after {limit:.0f} s") from error
        if done.returncode or not files.of("export.json").is_file():
            raise IntaglioError(f"{run.name}: perf_analyzer failed: {_said(files.of('log'))}")


def _overtaking(run: Run) -> int:
    """How many further requests may be answered before the last one that is measured. perf_analyzer ends with
    a number of answers, and the queue lets a request be overtaken.
    """
    if run.kind == "open":
        return _OVERTAKES
    return min(run.concurrency - 1, _OVERTAKES)


def find_tool(folder: Path) -> Tool:
    """The perf_analyzer on PATH, else the one in `folder`.

    Raises:
        IntaglioError: there is none, or it does not run here; says how to get one.
    """
    found = find_perf_analyzer(folder)
    said = _output(found, "--version")
    version = re.search(r"\d+\.\d+[\w.]*", said)
    if version is None:
        raise IntaglioError(f"{found.binary}: its version cannot be read: {single_line(said)}")
    counts = _REQUEST_COUNT.search(_output(found, "--help", must_succeed=False)) is not None
    return Tool(found, version[0], counts)


def _output(found: PerfAnalyzer, option: str, *, must_succeed: bool = True) -> str:
    try:
        done = subprocess.run(
            [found.binary, option],
            env=dict(found.environment),
            capture_output=True,
            text=True,
            timeout=_ASKING_SECONDS,
            check=False,
        )
    except (OSError, subprocess.TimeoutExpired) as error:
        raise IntaglioError(f"{found.binary} does not run here: {error}") from error
    if done.returncode and must_succeed:
        lines = _lines(done.stderr or done.stdout)
        raise IntaglioError(
            f"{found.binary} does not run here: {lines[-1] if lines else 'it says nothing'}; "
            "docs/benchmarking.md says which one does"
        )
    return done.stdout + done.stderr


def _said(log: Path) -> str:
    """The last thing that it printed beside its warnings."""
    lines = [
        line for line in _lines(log.read_text(encoding="utf-8", errors="replace")) if "WARNING" not in line
    ]
    return lines[-1] if lines else "it printed nothing"


def _lines(text: str) -> Sequence[str]:
    return [line.strip() for line in text.splitlines() if line.strip()]
