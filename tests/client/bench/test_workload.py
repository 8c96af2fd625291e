from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import yaml

from intaglio.errors import ConfigError
from intaglio_client.bench.runs import runs_of
from intaglio_client.bench.workload import read_workload

FOLDER = Path(__file__).parents[3] / "benchmarks" / "workloads"
VALID: dict[str, Any] = {
    "about": "a test",
    "requests": {"plain": {"prompts": ["a person"], "inputs": {"steps": 4}}},
    "loads": {"one": {"kind": "closed", "concurrency": [1], "requests": 8, "mix": {"plain": 1}}},
}


def written(folder: Path, **changes: Any) -> Path:
    path = folder / "mine.yaml"
    path.write_text(yaml.safe_dump({**VALID, **changes}))
    return path


def load(**changes: Any) -> dict[str, Any]:
    return {"one": {**VALID["loads"]["one"], **changes}}


def request(**changes: Any) -> dict[str, Any]:
    return {"plain": {**VALID["requests"]["plain"], **changes}}


@pytest.mark.parametrize("name", ["miniature", "mlperf", "sdxl"])
def test_the_workloads_of_the_repository_are_right(name: str) -> None:
    workload = read_workload(FOLDER / f"{name}.yaml")
    assert workload.name == name
    assert runs_of(workload)


def test_mlperf_has_its_settings_and_scenarios() -> None:
    workload = read_workload(FOLDER / "mlperf.yaml")
    runs = runs_of(workload)
    assert {run.scenario for run in runs} == {"SingleStream", "Server", "Offline"}
    for run in runs:
        for asked in run.asked:
            asked_for = {name: asked.parameters[name] for name in ("steps", "guidance_scale", "scheduler")}
            assert asked_for == {"steps": 20, "guidance_scale": 8.0, "scheduler": "euler"}
            assert (asked.parameters["width"], asked.parameters["height"]) == (1024, 1024)


@pytest.mark.parametrize(
    ("changes", "problem"),
    [
        ({"name": "x"}, "name: is the file's name"),
        ({"loads": load(mix={"other": 1})}, "no request is named 'other'; allowed: plain"),
        ({"loads": load(mix={})}, "loads.one.mix: empty; allowed: plain"),
        ({"loads": load(concurency=[1])}, "unknown key concurency; did you mean concurrency?"),
        ({"loads": load(kind="open")}, "loads.one: key rates is missing"),
        (
            {"loads": load(kind="opened")},
            "loads.one.kind is 'opened'; allowed: closed, open, streaming, growth",
        ),
        ({"loads": {"one": 3}}, "loads.one"),
        ({"loads": load(scenario="Server")}, "Server is a load of kind open"),
        ({"loads": load(scenario="Offline")}, "Offline is a load of kind closed"),
        ({"loads": load(scenario="SingleStream", concurrency=[1, 2])}, "SingleStream"),
        ({"requests": request(inputs={"seed": 3})}, "every request has a seed of its own"),
        ({"requests": request(inputs={"loras": "x"})}, "take the key loras beside inputs"),
        ({"requests": request(prompts=[])}, "prompts"),
        ({"requests": {**VALID["requests"], "idle": VALID["requests"]["plain"]}}, "no load sends idle"),
        ({"requests": request(controls=[{"type": "canny", "image": "no.png"}])}, "no.png: no such file"),
    ],
)
def test_what_is_wrong_is_named(tmp_path: Path, changes: dict[str, Any], problem: str) -> None:
    with pytest.raises(ConfigError) as caught:
        read_workload(written(tmp_path, **changes))
    assert problem in str(caught.value)
    assert str(tmp_path) in str(caught.value)


@pytest.mark.parametrize(
    ("growth", "problem"),
    [
        ({"vary": "size", "values": [1, 2]}, "allowed: [width, height]"),
        ({"vary": "steps", "values": [[1, 2], [3, 4]]}, "allowed: a number"),
        ({"vary": "steps", "values": [0, 2]}, "allowed: 1 and above"),
        ({"vary": "steps", "values": [2]}, "values"),
    ],
)
def test_values_that_cannot_grow_are_named(tmp_path: Path, growth: dict[str, Any], problem: str) -> None:
    loads = {"one": {"kind": "growth", "requests": 3, "mix": {"plain": 1}, **growth}}
    with pytest.raises(ConfigError) as caught:
        read_workload(written(tmp_path, loads=loads))
    assert problem in str(caught.value)


def test_an_input_that_does_not_exist_is_named(tmp_path: Path) -> None:
    workload = read_workload(written(tmp_path, requests=request(inputs={"stepz": 4})))
    with pytest.raises(ConfigError, match=r"requests\.plain: stepz"):
        runs_of(workload)
