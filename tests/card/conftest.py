"""The product's own suite on a card, with the real Triton and TensorRT-RTX.

    make test-card
Each test says in its marker `card` what it needs; without a card it is skipped with that line. Environment:

    INTAGLIO_CARD_DEBUG=cpu     run with ONNX Runtime on the CPU, to debug the tests themselves
    INTAGLIO_CARD_RESULTS=FILE  keep outcomes and figures in FILE; what has passed is not run again
    INTAGLIO_CARD_SECONDS=N     begin no test after N seconds
    INTAGLIO_CARD_SETS=N        random sets of LoRAs over which memory must stay flat (60; one takes 1 s)
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
import psutil
import pytest

from intaglio.contract.config import Deployment, load_deployment
from intaglio.engines.card import gpu_capability, read_card_memory
from intaglio.errors import IntaglioError
from intaglio.serving.endpoints import Endpoints
from intaglio.serving.installation import find_triton
from intaglio.serving.server import Server
from intaglio_client import Client
from intaglio_export.build import BuildResult

from ..leavings import nothing_left, own_servers
from ..serving.conftest import fused_build

__all__ = ["nothing_left", "own_servers"]

REPOSITORY = Path(__file__).parents[2]
CONFIG = REPOSITORY / "configs" / "miniature.yaml"
ON_CPU = os.environ.get("INTAGLIO_CARD_DEBUG") == "cpu"
RESULTS = os.environ.get("INTAGLIO_CARD_RESULTS")
SECONDS = float(os.environ.get("INTAGLIO_CARD_SECONDS", "inf"))
_BEGAN = time.monotonic()
PROMPT = "a person in a red sweater dancing on a beach"


def missing() -> str | None:
    """What this machine lacks; None where the suite can run."""
    if not ON_CPU and gpu_capability(0) is None:
        return "no NVIDIA card"
    if not ON_CPU and find_spec("tensorrt_rtx") is None:
        return "no tensorrt_rtx: pip install 'intaglio[tensorrt]'"
    try:
        find_triton().check()
    except IntaglioError as error:
        return f"no Triton: {error}"
    return None


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Skip what cannot run here, and what an earlier piece of the suite has done.

    The demo comes first: it begins from nothing, and others would have built for it. Memory comes next: it
    is measured on the server that the others share, before they ask it for anything.
    """
    first = ("test_demo.py", "test_memory.py")
    items.sort(key=lambda item: first.index(item.path.name) if item.path.name in first else len(first))
    lacking = missing()
    passed = {name for name, test in read_results()["tests"].items() if test["outcome"] == "passed"}
    for item in items:
        needs = item.get_closest_marker("card")
        if needs is None:
            continue
        if lacking is not None:
            item.add_marker(pytest.mark.skip(reason=f"{lacking}; needs {needs.args[0]}"))
        elif ON_CPU and needs.kwargs.get("only"):
            item.add_marker(pytest.mark.skip(reason=f"on the CPU; needs {needs.args[0]}"))
        elif item.nodeid in passed:
            item.add_marker(pytest.mark.skip(reason="has passed in an earlier piece"))


def pytest_runtest_setup(item: pytest.Item) -> None:
    if time.monotonic() - _BEGAN > SECONDS:
        item.session.shouldstop = "the time is over; run the suite again to go on"
        pytest.skip("the time is over")


def read_results() -> dict[str, Any]:
    """Outcomes and figures so far."""
    if RESULTS is not None and Path(RESULTS).is_file():
        found: dict[str, Any] = json.loads(Path(RESULTS).read_text())
        return found
    return {"tests": {}, "figures": {}}


def write_results(results: dict[str, Any]) -> None:
    if RESULTS is not None:
        Path(RESULTS).write_text(json.dumps(results, indent=1, sort_keys=True) + "\n")


@pytest.hookimpl(hookwrapper=True)
def pytest_runtest_makereport(item: pytest.Item, call: pytest.CallInfo[None]) -> Iterator[None]:
    outcome: Any = yield
    report = outcome.get_result()
    if item.get_closest_marker("card") is None or (report.when != "call" and not report.failed):
        return
    results = read_results()
    test = {"outcome": report.outcome, "seconds": round(report.duration, 1)}
    if report.failed:
        test["reason"] = str(report.longrepr)[-1500:]
        # A run that is cut off prints no summary.
        print(f"\n{item.nodeid} {report.when}: {test['reason']}", file=sys.__stdout__, flush=True)
    if report.when == "teardown":
        # What failed first stays the outcome: a failed test often leaves its server behind.
        before = results["tests"].get(item.nodeid, {})
        if before.get("outcome") == "failed":
            test = before | {"teardown": test["reason"]}
    results["tests"][item.nodeid] = test
    write_results(results)


@pytest.fixture
def record() -> Callable[..., None]:
    """record(name=value): keep measured figures with the results."""

    def keep(**figures: Any) -> None:
        results = read_results()
        results["figures"] |= figures
        write_results(results)
        print(figures)

    return keep


@pytest.fixture(scope="session")
def miniature() -> Deployment:
    """The miniature, built for this machine."""
    subprocess.run([sys.executable, "-m", "intaglio", "build", str(CONFIG)], check=True, timeout=400)
    return load_deployment(CONFIG)


@pytest.fixture(scope="session")
def alone(miniature: Deployment) -> Iterator[tuple[Server, int]]:
    """The miniature's server, and the bytes of the card that were used before it started."""
    before = used_bytes()
    with Server(miniature, endpoints=Endpoints()) as running:
        yield running, before


@pytest.fixture(scope="session")
def server(alone: tuple[Server, int]) -> Server:
    """It takes half a minute to start and to stop, so all tests share it. None with `nothing_left` may ask
    for it: it would be what is left.
    """
    return alone[0]


@pytest.fixture
def client(server: Server) -> Iterator[Client]:
    with Client(server.grpc_url, deadline=120) as connected:
        yield connected


def used_bytes() -> int:
    """Of the card, or of this process where there is none."""
    card = read_card_memory(0)
    return psutil.Process().memory_info().rss if card is None else card.used


def fused(
    miniature: Deployment,
    folder: Path,
    loras: dict[str, float],
    *,
    name: str | None = None,
    **defaults: object,
) -> BuildResult:
    """A build for this machine with `loras` fused, of one size, with guidance. Other `defaults` compile
    nothing again.
    """
    return fused_build(
        miniature,
        folder,
        loras,
        name=name,
        profiles={"sizes": [[256, 256]], "text_chunks": 1, "guidance": ["on"]},
        runtime="auto",
        precision="auto",
        defaults={"steps": 4, **defaults},
    )


def picture(url: str, **asked: Any) -> Any:
    """Pixels of a picture of 256x256 with four steps."""
    values = {"width": 256, "height": 256, "steps": 4, "seed": 3, **asked}
    with Client(url, deadline=120) as client:
        return client.generate(PROMPT, **values).pixels


def decibels(ours: Any, theirs: Any) -> float:
    """PSNR of two pictures of bytes; infinite for equal ones."""
    error = float(np.mean((ours.astype(float) - theirs.astype(float)) ** 2))
    return 10 * float(np.log10(255**2 / error)) if error else float("inf")
