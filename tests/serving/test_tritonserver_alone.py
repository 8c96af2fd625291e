"""A build is a model repository that `tritonserver` serves by itself, with its default settings."""

from __future__ import annotations

import json
import subprocess
import time
import urllib.request
from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest
import tritonclient.grpc as triton

from intaglio.contract.config import Deployment
from intaglio.contract.models import MODELS
from intaglio.serving.endpoints import Endpoints, choose_ports
from intaglio.serving.installation import find_triton
from intaglio.serving.server import Server
from intaglio.serving.versions import REPOSITORY

from ..served_metrics import served_metrics
from .conftest import copy_build
from .test_metrics import metrics_of_url

pytestmark = pytest.mark.slow

ASKED: dict[str, tuple[str, Any]] = {
    "prompt": ("BYTES", "a person in a red sweater on a beach"),
    "controls": ("BYTES", '[{"type": "pose", "pose": "waving-01"}]'),
    "seed": ("INT64", 11),
    "steps": ("INT32", 2),
}
_START_SECONDS = 60


@pytest.fixture(scope="module")
def plain(miniature: Deployment, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Endpoints]:
    """`tritonserver --model-repository=PLACE/model_repository` on free ports, on a build that was moved."""
    folder = tmp_path_factory.mktemp("plain")
    build = copy_build(miniature, folder / "moved")
    installation = find_triton()
    at = choose_ports(Endpoints())
    command: list[object] = [
        installation.binary,
        f"--model-repository={build / REPOSITORY}",
        *(f"--{name}-port={port}" for name, port in at.ports.items()),
    ]
    # The package keeps the stub of each Python elsewhere; NVIDIA's image has the one that it needs in place.
    backends = installation.make_backend_folder(folder)
    if backends is not None:
        command.append(f"--backend-directory={backends}")
    log = folder / "log"
    with log.open("wb") as output:
        process = subprocess.Popen(
            [str(word) for word in command],
            cwd=folder,
            env=installation.environment(),
            stdout=output,
            stderr=subprocess.STDOUT,
        )
    try:
        deadline = time.monotonic() + _START_SECONDS
        while not is_ready(at):
            assert process.poll() is None, log.read_text()[-2000:]
            assert time.monotonic() < deadline, log.read_text()[-2000:]
            time.sleep(0.1)
        yield at
    finally:
        process.terminate()
        process.wait(30)


def is_ready(at: Endpoints) -> bool:
    try:
        with urllib.request.urlopen(f"http://{at.url('http')}/v2/health/ready", timeout=2) as answer:
            return bool(answer.status == 200)
    except OSError:
        return False


def image_over_grpc(url: str) -> bytes:
    types: dict[str, Any] = {"INT64": np.int64, "INT32": np.int32, "BYTES": np.object_}
    inputs = []
    for name, (datatype, value) in ASKED.items():
        given = value.encode() if isinstance(value, str) else value
        inputs.append(triton.InferInput(name, [1], datatype))
        inputs[-1].set_data_from_numpy(np.array([given], types[datatype]))
    with triton.InferenceServerClient(url) as client:
        (image,) = client.infer("sdxl", inputs, client_timeout=60).as_numpy("image")
        return bytes(image)


def image_over_http(url: str) -> bytes:
    body = {
        "inputs": [
            {"name": name, "datatype": datatype, "shape": [1], "data": [value]}
            for name, (datatype, value) in ASKED.items()
        ],
        "outputs": [{"name": "image", "parameters": {"binary_data": True}}],
    }
    request = urllib.request.Request(f"http://{url}/v2/models/sdxl/infer", data=json.dumps(body).encode())
    with urllib.request.urlopen(request, timeout=60) as answer:
        header = int(answer.headers["Inference-Header-Content-Length"])
        return bytes(answer.read()[header + 4 :])  # the image comes after the JSON and its own length


def test_it_makes_the_pictures_of_intaglio_serve(plain: Endpoints, server: Server) -> None:
    served = image_over_grpc(server.grpc_url)
    assert image_over_grpc(plain.url("grpc")) == served
    assert image_over_http(plain.url("http")) == served


def test_it_has_the_metrics_of_the_page(plain: Endpoints, miniature: Deployment) -> None:
    """Those without a label: a LoRA has its metric once it is resident."""
    found = {name for name in metrics_of_url(plain.url("metrics")) if "{" not in name}
    assert found == {one.name for one in served_metrics(miniature) if not one.label}


def test_clients_can_read_the_text_of_every_tensor(plain: Endpoints, miniature: Deployment) -> None:
    built = {folder.name for folder in (miniature.build_folder / REPOSITORY).iterdir()}
    served = [model for model in MODELS if model.name in built]
    assert {model.name for model in served} == built
    for model in served:
        url = f"http://{plain.url('http')}/v2/models/{model.name}/config"
        with urllib.request.urlopen(url, timeout=5) as answer:
            parameters = json.load(answer)["parameters"]
        for port in model.inputs:
            assert parameters[f"doc.input.{port.name}"]["string_value"] == port.description
