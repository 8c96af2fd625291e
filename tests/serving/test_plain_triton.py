"""Our client and a `tritonserver` that nobody gave other options: it allows few pings."""

from __future__ import annotations

import re
import signal
import subprocess
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import grpc
import numpy as np
import pytest
import tritonclient.grpc as triton
from tritonclient.grpc import service_pb2, service_pb2_grpc
from tritonclient.utils import InferenceServerException, serialize_byte_tensor

from intaglio.serving.arguments import TritonSettings
from intaglio.serving.endpoints import Endpoints, choose_ports
from intaglio.serving.installation import find_triton
from intaglio_client.connections.channels import KEEPALIVE_SECONDS, ChannelSettings
from intaglio_client.connections.requests import outputs_of

pytestmark = pytest.mark.slow
PING_OPTION = "--grpc-http2-min-recv-ping-interval-without-data"
READY_SECONDS = 60


@pytest.fixture(scope="module")
def plain(
    triton_settings: Callable[..., TritonSettings], tmp_path_factory: pytest.TempPathFactory
) -> Iterator[str]:
    """host:port of gRPC of a plain server with the model `echo`."""
    installation, settings, at = find_triton(), triton_settings(), choose_ports(Endpoints())
    command = [str(installation.binary), f"--model-repository={settings.repository}"]
    command += [f"--{name}-port={port}" for name, port in at.ports.items()]
    backends = installation.make_backend_folder(tmp_path_factory.mktemp("backends"))
    if backends is not None:
        command.append(f"--backend-directory={backends}")
    with settings.log.open("wb") as log:
        process = subprocess.Popen(
            command, env=installation.environment(), stdout=log, stderr=subprocess.STDOUT
        )
    try:
        _wait_until_ready(at.url("grpc"), process, settings.log)
        yield at.url("grpc")
    finally:
        process.send_signal(signal.SIGINT)
        process.wait(60)


def _wait_until_ready(url: str, process: subprocess.Popen[bytes], log: Path) -> None:
    with triton.InferenceServerClient(url) as probe:
        for _ in range(10 * READY_SECONDS):
            assert process.poll() is None, log.read_text()
            try:
                if probe.is_model_ready("echo"):
                    return
            except InferenceServerException:
                pass
            time.sleep(0.1)
    raise AssertionError(log.read_text())


def said_after(seconds: float, settings: ChannelSettings, url: str) -> bytes:
    """The answer of `echo` after it slept, over a connection of our client."""
    words = np.array([b"sleep", str(seconds).encode()], object)
    message = service_pb2.ModelInferRequest(model_name="echo")
    message.inputs.add(name="words", datatype="BYTES", shape=[2])
    message.raw_input_contents.append(serialize_byte_tensor(words).item())
    with settings.open(url) as channel:
        stub = service_pb2_grpc.GRPCInferenceServiceStub(channel)
        response = stub.ModelInfer(message, timeout=60)
    return bytes(outputs_of(response)["said"][0])


def test_frequent_pings_end_the_connection_and_ours_are_seldom(plain: str) -> None:
    with pytest.raises(grpc.RpcError, match=r"(?i)too.many.pings|GOAWAY"):
        said_after(6, ChannelSettings(keepalive=0.5), plain)
    assert said_after(6, ChannelSettings(), plain) == b"sleep 6"


def test_the_servers_default_is_below_our_interval() -> None:
    """What `tritonserver --help` says of the pings that it allows, in milliseconds."""
    text = find_triton().options
    described = text[text.index(PING_OPTION) :]
    default = re.search(r"Default is\s+(\d+)", described)
    assert default is not None, described
    assert int(default[1]) / 1000 < KEEPALIVE_SECONDS
