"""NVIDIA's load generator runs against the server."""

from __future__ import annotations

import csv
import json
import re
import subprocess
from pathlib import Path

import pytest

from intaglio.serving.perf_analyzer import PerfAnalyzer
from intaglio.serving.server import Server

pytestmark = pytest.mark.slow


def test_perf_analyzer_measures_sdxl(perf_analyzer: PerfAnalyzer, server: Server, tmp_path: Path) -> None:
    request = {"prompt": ["a person in a room"], "seed": [1], "width": [256], "height": [192], "steps": [1]}
    (tmp_path / "input.json").write_text(json.dumps({"data": [request]}))
    command = [
        perf_analyzer.binary,
        "-m",
        "sdxl",
        "-u",
        server.grpc_url,
        "-i",
        "grpc",
        "--input-data",
        tmp_path / "input.json",
    ]
    # As many trials of as few requests as it can do with; a shared CPU is never stable.
    command += [
        "--measurement-mode",
        "count_windows",
        "--measurement-request-count",
        "4",
        "--stability-percentage",
        "999",
    ]
    command += ["--max-trials", "5", "-f", tmp_path / "out.csv"]
    done = subprocess.run(
        command, env=dict(perf_analyzer.environment), capture_output=True, text=True, timeout=120, check=False
    )
    assert done.returncode == 0, done.stdout + done.stderr
    with (tmp_path / "out.csv").open() as file:
        measured = next(csv.DictReader(file))
    assert float(measured["Inferences/Second"]) > 0
    assert float(measured["p50 latency"]) > 0


def test_perf_analyzer_measures_sdxl_stream(
    perf_analyzer: PerfAnalyzer, server: Server, tmp_path: Path
) -> None:
    """Seconds to the picture in its table; those to every event in its export."""
    request = {
        "prompt": ["a person in a room"],
        "seed": [1],
        "width": [256],
        "height": [192],
        "steps": [2],
        "slice_steps": [1],
    }
    (tmp_path / "input.json").write_text(json.dumps({"data": [request]}))
    command = [perf_analyzer.binary, "-m", "sdxl_stream", "-u", server.grpc_url, "-i", "grpc"]
    command += ["--streaming", "--async", "--input-data", tmp_path / "input.json"]
    command += ["--measurement-mode", "count_windows", "--measurement-request-count", "4"]
    command += ["--stability-percentage", "999", "--max-trials", "5"]
    command += ["--profile-export-file", tmp_path / "export.json"]
    done = subprocess.run(
        command, env=dict(perf_analyzer.environment), capture_output=True, text=True, timeout=120, check=False
    )
    assert done.returncode == 0, done.stdout + done.stderr
    # It writes the outputs too, and the bytes of an image are no text.
    export = (tmp_path / "export.json").read_bytes()
    requests = re.findall(rb'"timestamp":(\d+).*?"response_timestamps":\[([\d,]+)\]', export, re.DOTALL)
    assert len(requests) >= 4
    for begun, answered in requests:
        times = [int(time) for time in answered.split(b",")]
        assert len(times) >= 4, "its turn, two slices and the picture"
        assert int(begun) < times[0] < times[-1]
