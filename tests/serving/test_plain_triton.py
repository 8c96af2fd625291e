"""Our client and a `tritonserver` that nobody gave other options: it allows few pings."""

from __future__ import annotations

import re
import signal
import subprocess
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest
import tritonclient.grpc as triton
from tritonclient.utils import InferenceServerException

from intaglio.serving.arguments import TritonSettings
from intaglio.serving.endpoints import Endpoints, choose_ports
from intaglio.serving.installation import find_triton
from intaglio_client import Client
from intaglio_client.client import KEEPALIVE_SECONDS

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


def said_after(seconds: float, client: Client) -> bytes:
    """The answer of `echo` after it slept."""
    words = triton.InferInput("words", [2], "BYTES")
    words.set_data_from_numpy(np.array([b"sleep", str(seconds).encode()], object))
    result = client._channel().infer("echo", [words], client_timeout=60)
    return bytes(result.as_numpy("said")[0])


def test_frequent_pings_end_the_connection_and_ours_are_seldom(plain: str) -> None:
    with (
        Client(plain, keepalive=0.5) as impatient,
        pytest.raises(InferenceServerException, match=r"(?i)too.many.pings|GOAWAY"),
    ):
        said_after(6, impatient)
    with Client(plain) as client:
        assert said_after(6, client) == b"sleep 6"


def test_the_servers_default_is_below_our_interval() -> None:
    """What `tritonserver --help` says of the pings that it allows, in milliseconds."""
    text = find_triton().options
    described = text[text.index(PING_OPTION) :]
    default = re.search(r"Default is\s+(\d+)", described)
    assert default is not None, described
    assert int(default[1]) / 1000 < KEEPALIVE_SECONDS
