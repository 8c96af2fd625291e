"""Metrics of `diffuse` beside the wall clock, for both kinds of build."""

from __future__ import annotations

import threading
import time
import urllib.request
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tritonclient.grpc as triton

from intaglio.contract.config import Deployment, load_deployment
from intaglio.serving.endpoints import Endpoints
from intaglio.serving.server import Server
from intaglio.serving.triton_server import TritonServer
from intaglio.serving.versions import REPOSITORY
from intaglio_client import Client, Tls

from ..served_metrics import served_metrics
from .conftest import fused_build

pytestmark = pytest.mark.slow

CLIENTS = 4
ASKED: Any = {"steps": 25, "seed": 1, "num_images": 2}
"""Drawing takes longer than preparing, also where other work has the cores: so requests wait for engines."""
LABELS = """
import numpy as np
import triton_python_backend_utils as pb_utils

from intaglio.triton_models.metrics import LabelledGauge, MetricSpec


class TritonPythonModel:
    def initialize(self, args):
        self.gauge = LabelledGauge(pb_utils, MetricSpec("test", "gauge", "a test", label="lora"), most=3)

    def execute(self, requests):
        for request in requests:
            (word,) = pb_utils.get_input_tensor_by_name(request, "words").as_numpy().tolist()
            self.gauge.set({word.decode(): 1.0})
        said = pb_utils.Tensor("said", np.array([b""], dtype=object))
        return [pb_utils.InferenceResponse([said]) for _ in requests]
"""
KEEPING = """
import faulthandler

import numpy as np
import triton_python_backend_utils as pb_utils

faulthandler.enable()


class TritonPythonModel:
    def initialize(self, args):
        family = pb_utils.MetricFamily
        self.family = family(name="intaglio_test", description="a test", kind=family.GAUGE)
        self.metric = self.family.Metric(labels={{}})

    def execute(self, requests):
        return [pb_utils.InferenceResponse([]) for _ in requests]

    def finalize(self):
        {finalize}
"""
CRASH = "Fatal Python error: Segmentation fault"


def metrics_of(server: TritonServer) -> dict[str, float]:
    """Ours, without the prefix."""
    return metrics_of_url(server.metrics_url)


def metrics_of_url(url: str) -> dict[str, float]:
    """Ours at `host:port`, without the prefix."""
    with urllib.request.urlopen(f"http://{url}/metrics", timeout=5) as answer:
        lines = answer.read().decode().splitlines()
    found = {}
    for line in lines:
        name, _, value = line.rpartition(" ")
        if name.startswith("intaglio_"):
            found[name.removeprefix("intaglio_")] = float(value)
    return found


def check_metrics(server: Server, *, tls: Tls | None = None) -> str:
    """Name, type and text are those of the page, for such a server; nothing of ours is without the prefix.

    The text of its metrics, after a picture.
    """
    asked: Any = {"loras": [("night", 0.8)]} if server.deployment.swaps else {}
    with Client(server.grpc_url, deadline=120, tls=tls) as client:
        client.generate("a person waving", steps=1, **asked)
    with urllib.request.urlopen(f"http://{server.metrics_url}/metrics", timeout=5) as answer:
        lines = answer.read().decode().splitlines()
    said = [line.split(" ", 3)[1:] for line in lines if line.startswith(("# HELP ", "# TYPE "))]
    texts = {name: text for kind, name, text in said if kind == "HELP"}
    types = {name: text for kind, name, text in said if kind == "TYPE"}
    assert {name.split("_")[0] for name in types} == {"nv", "intaglio"}
    ours = {name: (types[name], texts[name]) for name in types if not name.startswith("nv_")}
    expected = served_metrics(server.deployment, tls=tls is not None)
    assert ours == {one.full_name: (one.kind, one.doc) for one in expected}
    return "\n".join(lines)


def test_metrics_are_those_of_the_page(server: Server) -> None:
    assert 'intaglio_lora_resident{lora="night"} 0.8' in check_metrics(server)


def test_so_are_those_of_a_server_with_tls(secured: Server, ours: Tls) -> None:
    check_metrics(secured, tls=ours)


@pytest.mark.long
def test_so_are_those_where_loras_are_fused(fused: Server) -> None:
    check_metrics(fused)


@pytest.fixture(scope="module")
def fused(miniature: Deployment, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """A server with a fused set, and without ControlNets."""
    folder = tmp_path_factory.mktemp("fused")
    fused_build(miniature, folder, {"mara": 1.0}, name="plate")
    with Server(load_deployment(folder / "plate.yaml"), endpoints=Endpoints()) as running:
        yield running


@pytest.fixture(params=["server", pytest.param("fused", marks=pytest.mark.long)])
def measured(request: pytest.FixtureRequest) -> Server:
    """The session's server, whose requests choose LoRAs, or one with a fused set."""
    running: Server = request.getfixturevalue(request.param)
    return running


def test_queue_and_computing_are_those_of_the_wall_clock(measured: Server) -> None:
    width, height = measured.deployment.profiles.sizes[0]
    asked = {**ASKED, "width": width, "height": height}

    def ask(_: int) -> tuple[float, float]:
        with Client(measured.grpc_url, deadline=120) as client:
            timings = client.generate_batch("a person in a room", **asked)[0].timings
        computed = sum(timings[stage] for stage in ("text_encoders", "denoise", "vae"))
        others = sum(timings[stage] for stage in ("preprocess", "postprocess"))
        return computed, timings["request"] - computed - others

    ask(0)
    before = metrics_of(measured)
    seen: list[dict[str, float]] = []
    stop = threading.Event()

    def watch() -> None:
        while not stop.wait(0.1):
            seen.append(metrics_of(measured))

    watching = threading.Thread(target=watch)
    watching.start()
    started = time.perf_counter()
    with ThreadPoolExecutor(CLIENTS) as pool:
        times = list(pool.map(ask, range(2 * CLIENTS)))
    wall = time.perf_counter() - started
    stop.set()
    watching.join()
    after = metrics_of(measured)
    grown = {name: after[name] - before[name] for name in before if name.endswith("_total")}
    computed, waited = (sum(values) for values in zip(*times, strict=True))
    assert grown["requests_total"] == 2 * CLIENTS
    assert grown["compute_seconds_total"] == pytest.approx(computed, rel=0.05, abs=0.1)
    assert grown["compute_seconds_total"] <= wall
    assert grown["compute_seconds_total"] > 0.5 * wall, "the clients leave no pause"
    # The clients' figure contains the network and what Triton does between the stages, which other work
    # delays.
    print(f"queue: {grown['queue_seconds_total']:.2f} s, as the clients see it {waited:.2f} s")
    assert 0.8 * waited <= grown["queue_seconds_total"] <= waited + 0.1
    assert grown["queue_seconds_total"] > computed, "three wait while one computes"
    assert max(one["queue_depth"] for one in seen) == CLIENTS - 1
    assert max(one["running"] for one in seen) == 1
    oldest = max(one["queue_oldest_wait_seconds"] for one in seen)
    assert 0 < oldest <= after["queue_longest_wait_seconds"] + 0.1
    until = time.monotonic() + 30  # it reports every second
    while any(metrics_of(measured)[name] for name in ("queue_depth", "queue_oldest_wait_seconds", "running")):
        assert time.monotonic() < until, "nobody is served, and the metrics say something else"
        time.sleep(0.1)


def test_triton_forgets_the_metric_of_a_label(triton_settings: Any) -> None:
    """`LabelledGauge` keeps some labels: what it drops is no longer shown."""
    with (
        TritonServer(triton_settings(LABELS)) as server,
        triton.InferenceServerClient(server.grpc_url) as client,
    ):
        for number in range(6):
            words = triton.InferInput("words", [1], "BYTES")
            words.set_data_from_numpy(np.array([f"l{number}".encode()], object))
            client.infer("echo", [words])
            time.sleep(0.2)
            shown = metrics_of(server)
            assert shown[f'test{{lora="l{number}"}}'] == 1
            assert len(shown) == number % 3 + 1, "with the fourth label, those before are no longer shown"


@pytest.mark.parametrize(("finalize", "crashes"), [("pass", True), ("del self.metric, self.family", False)])
def test_triton_crashes_the_process_of_a_metric_that_outlives_finalize(
    triton_settings: Any, finalize: str, crashes: bool
) -> None:
    """`Reporter.close` prevents that."""
    with TritonServer(triton_settings(KEEPING.format(finalize=finalize))) as server:
        pass  # the model has made the metric
    assert (CRASH in server.settings.log.read_text()) is crashes


def test_no_process_crashes_at_the_end(miniature: Deployment, tmp_path: Path) -> None:
    """The process of each model tells in the log if it does."""
    fused_build(miniature, tmp_path, {"mara": 1.0}, name="plate")
    deployment = load_deployment(tmp_path / "plate.yaml")
    programs = list((deployment.build_folder / REPOSITORY).glob("*/1/model.py"))
    for program in programs:
        text = program.read_text()
        program.unlink()  # it may be a hard link
        program.write_text(f"{text}\nimport faulthandler\n\nfaulthandler.enable()\n")
    assert {"diffuse", "preprocess", "postprocess", "sdxl_stream"} <= {path.parts[-3] for path in programs}
    log = tmp_path / "log"
    with Server(deployment, endpoints=Endpoints(), log=log) as server:
        with Client(server.grpc_url, deadline=120) as client:
            client.generate("a person waving", steps=1)
        assert "requests_total" in metrics_of(server)
    assert CRASH not in log.read_text()
