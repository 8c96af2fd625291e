"""`intaglio bench` with the real perf_analyzer on the real server."""

from __future__ import annotations

import csv
import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from intaglio.contract.config import Deployment
from intaglio.serving.server import Server
from intaglio_client import Client

from .conftest import REPOSITORY

pytestmark = pytest.mark.slow
WORKLOAD = f"""
about: a test
requests:
  plain: {{prompts: [a person waving], distinct_prompts: true, inputs: {{width: 192, height: 256, steps: 1}}}}
  drawn:
    prompts: [a person jumping]
    inputs: {{width: 256, height: 256, steps: 2, trigger_words: false, guidance_scale: 1.5}}
    controls: [{{type: pose, image: {REPOSITORY / "docs/controls/pose.png"}, weight: 0.5}}]
    loras: {{night: 0.5}}
loads:
  mixed: {{kind: closed, concurrency: [2], requests: 6, warm_up: 2, mix: {{plain: 1, drawn: 1}}}}
  arrivals: {{kind: open, rates: [4], requests: 6, mix: {{plain: 1}}, scenario: Server, latency_limit: 60}}
  watched: {{kind: streaming, concurrency: [1], requests: 3, preview: 64, slice_steps: 1, mix: {{plain: 1}}}}
"""


def bench(folder: Path, *arguments: object) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "intaglio", "bench", *map(str, arguments)]
    return subprocess.run(command, cwd=folder, capture_output=True, text=True, timeout=200, check=False)


def test_bench_measures_every_kind_of_load_and_measures_none_again(
    miniature: Deployment, server: Server, perf_analyzer_folder: Path, tmp_path: Path
) -> None:
    (tmp_path / "mine.yaml").write_text(WORKLOAD)
    where = ["--url", server.grpc_url, "--config", miniature.folder / f"{miniature.name}.yaml"]
    options = [*where, "--perf-analyzer", perf_analyzer_folder, "--out", "out"]
    short = bench(tmp_path, "mine.yaml", *options, "--seconds", "1", "--no-plots")
    assert short.returncode == 1, short.stderr
    report = json.loads((tmp_path / "out/report.json").read_text())
    left = {load["load"]: load["failed"] for load in report["loads"]}
    # Six requests, four a second: on no machine is that over in a second. A fast one measures the others.
    assert left["arrivals"]
    assert all("s of --seconds were left; the same command" in why for why in left.values() if why)
    assert not list((tmp_path / "out").glob("*.png"))

    done = bench(tmp_path, "mine.yaml", *options, "--json")
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout)
    loads = {load["load"]: load for load in found["loads"]}
    assert [loads[name]["requests"] for name in ("mixed", "arrivals", "watched")] == [6, 6, 3]
    assert loads["arrivals"]["scenario"]["reached"]
    assert 0 < loads["watched"]["first_event"]["p50"] < loads["watched"]["first_preview"]["p50"]
    assert loads["watched"]["first_preview"]["p50"] < loads["watched"]["latency"]["p50"]
    assert found["served"]["runtime"] == "onnxruntime"

    report = json.loads((tmp_path / "out/report.json").read_text())
    assert all(load["memory"]["host_bytes"] > 100 << 20 for load in report["loads"]), "Triton's own address"
    (mixed,) = (load for load in report["loads"] if load["load"] == "mixed")
    assert [sample["kind"] for sample in mixed["samples"]] == ["plain", "drawn"] * 3
    assert all(sample["stages"]["denoise"] < sample["seconds"] for sample in mixed["samples"])
    requests = json.loads((tmp_path / "out/loads/mixed-2.requests.json").read_text())
    said = [json.loads(request["response_outputs"][0]["metadata"]) for request in requests]
    by_seed = {one["seed"]: one for one in said}
    drawn, plain = by_seed[3], by_seed[2]
    assert (drawn["guidance_scale"], drawn["trigger_words"]) == (1.5, False)
    assert drawn["loras"] == [{"id": "night", "weight": 0.5}]
    assert drawn["controls"][0]["weight"] == 0.5
    assert plain["controls"] == plain["loras"] == [], "nothing is left of the request before"
    assert plain["prompt"] == "a person waving, number 3 of mixed 2"
    with (tmp_path / "out/loads/mixed-2.csv").open() as file:
        assert float(next(csv.DictReader(file))["p50 latency"]) > 0

    with Client(server.grpc_url) as client:
        image = client.generate(
            "a person waving, number 3 of mixed 2", seed=2, width=192, height=256, steps=1
        )
    assert image.metadata == {**plain, "image_index": 0}

    again = bench(tmp_path, "mine.yaml", *options, "--quiet")
    assert (again.returncode, again.stdout) == (0, "out/report.md\n"), again.stderr
    assert json.loads((tmp_path / "out/report.json").read_text())["loads"] == report["loads"]
    compared = bench(tmp_path, "compare", "out/report.json", "out/report.json", "--json")
    assert compared.returncode == 0, compared.stderr
    assert {load["verdict"] for load in json.loads(compared.stdout)["loads"]} == {None}, "too few requests"


def changed(**inputs: Any) -> str:
    request = {"prompts": ["a"], "inputs": inputs}
    load = {"kind": "closed", "concurrency": [1], "requests": 1, "mix": {"plain": 1}}
    return json.dumps({"about": "x", "requests": {"plain": request}, "loads": {"one": load}})


def test_what_the_server_refuses_is_refused_before_anything_is_measured(
    server: Server, perf_analyzer_folder: Path, tmp_path: Path
) -> None:
    (tmp_path / "mine.yaml").write_text(changed(width=192, height=192))
    options = ["--url", server.grpc_url, "--perf-analyzer", perf_analyzer_folder]
    done = bench(tmp_path, "mine.yaml", *options)
    assert done.returncode == 1
    assert "requests.plain: the server refuses it: height: 192x192 is not built" in done.stderr
    assert not (tmp_path / "out").exists()


def test_no_server_may_be_tried_again_later(perf_analyzer_folder: Path, tmp_path: Path) -> None:
    (tmp_path / "mine.yaml").write_text(changed(steps=1))
    done = bench(tmp_path, "mine.yaml", "--url", "127.0.0.1:9", "--perf-analyzer", perf_analyzer_folder)
    assert done.returncode == 75
    assert "no server is ready at 127.0.0.1:9" in done.stderr
    unknown = bench(tmp_path, "run", "mine.yaml", "--load", "two")
    assert unknown.returncode == 1
    assert "the workload has no load 'two'; allowed: one" in unknown.stderr
