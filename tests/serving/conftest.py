"""Trivial models for the real Triton, the miniature's build and its server."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
import yaml

from intaglio.contract.config import Deployment, load_deployment
from intaglio.errors import IntaglioError
from intaglio.serving.arguments import TritonSettings
from intaglio.serving.endpoints import Endpoints
from intaglio.serving.installation import find_triton
from intaglio.serving.perf_analyzer import REQUIREMENTS, PerfAnalyzer, find_perf_analyzer
from intaglio.serving.production import hardened
from intaglio.serving.server import Server
from intaglio.serving.server_tls import ServerTls
from intaglio_client import Client, Tls
from intaglio_client.bench.tool import find_tool
from intaglio_export.build import BuildOptions, BuildResult, build_deployment
from intaglio_export.plan.stages import StageOutcome

from ..leavings import nothing_left, own_servers

if TYPE_CHECKING:
    from ..client.certificates import Certificates

__all__ = ["nothing_left", "own_servers"]

REPOSITORY = Path(__file__).parents[2]
# A GPU host runs these tests on another deployment of the same controls, poses and LoRA.
CONFIG_FILE = Path(os.environ.get("INTAGLIO_TEST_CONFIG", REPOSITORY / "configs" / "miniature.yaml"))

FUSED_SIZE = (128, 128)
"""Of the pictures that are compared with other builds; ONNX Runtime's engines run any."""

ECHO = """
import os
import sys
import time

import numpy as np
import triton_python_backend_utils as pb_utils


class TritonPythonModel:
    def execute(self, requests):
        return [self.answer(request) for request in requests]

    def answer(self, request):
        words = pb_utils.get_input_tensor_by_name(request, "words").as_numpy().tolist()
        if words[0] == b"sleep":
            for begun in words[2:]:
                open(begun, "w").close()
            time.sleep(float(words[1]))
        said = np.array([b" ".join(words), sys.prefix.encode(), str(os.getpid()).encode()], dtype=object)
        return pb_utils.InferenceResponse([pb_utils.Tensor("said", said)])
"""
CONFIG = """
backend: "python"
max_batch_size: 0
input { name: "words" data_type: TYPE_STRING dims: [-1] }
output { name: "said" data_type: TYPE_STRING dims: [-1] }
instance_group { kind: KIND_CPU count: 1 }
"""


@pytest.fixture(scope="session", autouse=True)
def _needs_triton() -> None:
    try:
        find_triton().check()
    except IntaglioError as error:
        pytest.skip(f"no Triton here: {error}")


@pytest.fixture(scope="session")
def triton_settings(tmp_path_factory: pytest.TempPathFactory) -> Callable[..., TritonSettings]:
    """Settings for a repository with the one model `echo` of the given source."""

    def make(source: str = ECHO) -> TritonSettings:
        folder = tmp_path_factory.mktemp("echo")
        model = folder / "models" / "echo"
        (model / "1").mkdir(parents=True)
        (model / "config.pbtxt").write_text(CONFIG)
        (model / "1" / "model.py").write_text(source)
        return TritonSettings(
            repository=folder / "models", endpoints=Endpoints(), log=folder / "triton.log", drain_seconds=3
        )

    return make


@pytest.fixture(scope="session")
def miniature() -> Deployment:
    """The miniature's deployment, built: the folder that `make demo` uses, so nothing is built twice."""
    deployment = load_deployment(CONFIG_FILE)
    subprocess.run(
        [sys.executable, "-m", "intaglio", "build", str(CONFIG_FILE)],
        check=True,
        timeout=400,
        stdout=subprocess.DEVNULL,
    )
    return deployment


def copy_build(deployment: Deployment, folder: Path) -> Path:
    """The build of `deployment` at another place. Links will do: who writes a file of it makes a new one."""

    def link(source: str, target: str) -> None:
        try:
            os.link(source, target)
        except OSError:  # another file system
            shutil.copy2(source, target)

    ignored = shutil.ignore_patterns("*.log")
    return shutil.copytree(deployment.build_folder, folder, ignore=ignored, copy_function=link)


@pytest.fixture(scope="session")
def own_build(miniature: Deployment, tmp_path_factory: pytest.TempPathFactory) -> Deployment:
    """The miniature with a build of its own. Tests publish LoRAs in it, and the other process of `make test`
    builds the miniature, which publishes those of the registry.
    """
    folder = tmp_path_factory.mktemp("served")
    copy_build(miniature, folder / miniature.name)
    return miniature.model_copy(update={"build": folder})


@pytest.fixture(scope="session")
def server(own_build: Deployment) -> Iterator[Server]:
    """The miniature served on free ports."""
    with Server(own_build, endpoints=Endpoints()) as running:
        yield running


@pytest.fixture(scope="session")
def made(tmp_path_factory: pytest.TempPathFactory) -> Certificates:
    """An authority that the server trusts and another one, and what they signed."""
    # The suite on a card shares this file, and its host may have no cryptography.
    from ..client.certificates import certificates  # noqa: PLC0415

    return certificates(tmp_path_factory.mktemp("certificates"))


@pytest.fixture(scope="session")
def secured(miniature: Deployment, made: Certificates) -> Iterator[Server]:
    """The miniature as `intaglio serve --production` serves it; it soon notices who does not answer. A reload
    wants the configuration's own build, so tests publish nothing in it.
    """
    tls = ServerTls(certificate=made.file("server.pem"), key=made.file("server.key"), ca=made.file("ca.pem"))
    options = ["--grpc-keepalive-time=1000", "--grpc-keepalive-timeout=1000"]
    with Server(miniature, endpoints=hardened(Endpoints(tls=tls)), options=options) as running:
        yield running


@pytest.fixture(scope="session")
def ours(made: Certificates) -> Tls:
    """The files of a client that `secured` serves."""
    return Tls(ca=made.file("ca.pem"), certificate=made.file("client.pem"), key=made.file("client.key"))


@pytest.fixture
def client(server: Server) -> Iterator[Client]:
    """Our client of `server`."""
    with Client(server.grpc_url, deadline=120) as connected:
        yield connected


@pytest.fixture(scope="session")
def perf_analyzer_folder() -> Path:
    """Where a perf_analyzer is that runs here."""
    folder = REPOSITORY / "build" / "tools" / "perf_analyzer"
    if not (folder / "bin" / "perf_analyzer").is_file():
        options = ["--quiet", "--no-deps", "--target", str(folder)]
        command = [sys.executable, "-m", "pip", "install", *options, *REQUIREMENTS]
        done = subprocess.run(command, capture_output=True, text=True, timeout=120, check=False)
        if done.returncode:
            pytest.skip(f"perf_analyzer cannot be installed here: {done.stderr.strip().splitlines()[-1]}")
    try:
        find_tool(folder)
    except IntaglioError as error:
        pytest.skip(str(error))
    return folder


@pytest.fixture(scope="session")
def perf_analyzer(perf_analyzer_folder: Path) -> PerfAnalyzer:
    """It and its environment."""
    return find_perf_analyzer(perf_analyzer_folder)


class Silent:
    """A reporter for builds that nobody watches."""

    def planned(self, seconds: float) -> None: ...
    def started(self, stage: str, reason: str) -> None: ...
    def finished(self, outcome: StageOutcome, expected: float) -> None: ...
    def waiting(self) -> None: ...


def fused_build(
    miniature: Deployment, folder: Path, fuse: dict[str, float], *, name: str | None = None, **changes: object
) -> BuildResult:
    """The miniature's networks that a LoRA may touch, with a set fused at build time; stages are shared with
    the other builds.
    """
    values = {
        "base": [{"folder": str(REPOSITORY / "miniature/model")}],
        "loras": {lora: {"path": str(REPOSITORY / f"miniature/loras/{lora}.safetensors")} for lora in fuse},
        "fuse": fuse,
        "profiles": {"sizes": [list(FUSED_SIZE)], "text_chunks": 1, "guidance": ["on"]},
        "precision": "fp32",
        "runtime": "onnxruntime",
        "build": str(folder),
        **changes,
    }
    if not (folder / ".stages").is_symlink():
        (folder / ".stages").symlink_to(miniature.build / ".stages")
    path = folder / f"{name or '-'.join(['fused', *fuse])}.yaml"
    path.write_text(yaml.safe_dump(values))
    return build_deployment(path, BuildOptions(), reporter=Silent())
