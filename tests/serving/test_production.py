"""`--production` on the real server: who is served, who is refused, and what the administrator still does."""

from __future__ import annotations

import json
import signal
import ssl
import subprocess
import sys
import time
import urllib.error
import urllib.request
from pathlib import Path
from typing import Any

import pytest
import tritonclient.grpc as triton

from intaglio.contract.config import Deployment
from intaglio.serving.control import ask_to_reload, controlled_servers
from intaglio.serving.health import LIVE_PATH, problem_of
from intaglio.serving.server import Server
from intaglio.triton_models.certificate_metric import CERTIFICATE_EXPIRES
from intaglio_client import NO_RETRIES, Client, Tls, Unavailable
from intaglio_client.watch import store_of
from intaglio_client.watch_samples import NotDrawn, Samples, drawn, ready_server

from ..client.certificates import Certificates
from .conftest import CONFIG_FILE
from .test_metrics import metrics_of

pytestmark = pytest.mark.slow

SHORT: Any = {"steps": 2, "seed": 5, "width": 256, "height": 192}
CLOSED = ("get_model_repository_index", "get_system_shared_memory_status", "get_log_settings")
CLOSED_IN_PRODUCTION = ("get_trace_settings", "get_cuda_shared_memory_status", "get_inference_statistics")


def files_of(made: Certificates, *, ca: str = "ca", client: str = "client") -> Tls:
    return Tls(
        ca=made.file(f"{ca}.pem"), certificate=made.file(f"{client}.pem"), key=made.file(f"{client}.key")
    )


def test_who_shows_the_right_certificate_is_served(secured: Server, server: Server, ours: Tls) -> None:
    with Client(secured.grpc_url, tls=ours, deadline=60) as client, Client(server.grpc_url) as plain:
        assert client.is_ready()
        assert (
            client.generate("a person in a room", **SHORT).data
            == plain.generate("a person in a room", **SHORT).data
        )
        assert client.stream("a person in a room", **SHORT).result()[0].data


def test_who_shows_none_or_that_of_another_authority_is_refused(secured: Server, made: Certificates) -> None:
    alone = Tls(ca=made.file("ca.pem"))
    for tls in (None, alone, files_of(made, client="stranger"), files_of(made, ca="foreign")):
        with (
            Client(secured.grpc_url, tls=tls, retries=NO_RETRIES, deadline=20) as stranger,
            pytest.raises(Unavailable),
        ):
            stranger.generate("a person in a room", **SHORT)


def test_the_administrators_protocols_are_closed_to_those_with_a_certificate(
    secured: Server, made: Certificates
) -> None:
    files = {
        "root_certificates": made.file("ca.pem"),
        "private_key": made.file("client.key"),
        "certificate_chain": made.file("client.pem"),
    }
    told = {name: str(path) for name, path in files.items()}
    with triton.InferenceServerClient(secured.grpc_url, ssl=True, **told) as client:
        assert client.is_model_ready("sdxl"), "who may draw may ask for this"
        for name in (*CLOSED, *CLOSED_IN_PRODUCTION):
            for headers in ({}, {"intaglio-admin": "private"}):
                with pytest.raises(triton.InferenceServerException, match="restricted"):
                    getattr(client, name)(headers=headers)
        for call, words in (
            (client.load_model, ("sdxl",)),
            (client.unload_model, ("sdxl",)),
            (client.get_model_config, ("sdxl",)),
            (client.register_system_shared_memory, ("x", "/x", 1)),
        ):
            with pytest.raises(triton.InferenceServerException, match="restricted"):
                call(*words)


def test_http_tells_health_and_metadata_only(secured: Server) -> None:
    """It asks for no certificate, so nothing else is open there."""
    assert secured.http_url.startswith("127.0.0.1:")
    assert problem_of(secured.http_url) is None
    assert problem_of(secured.http_url, path=LIVE_PATH) is None
    assert problem_of(secured.http_url, path="/v2/models/sdxl") is None, "docs/operating.md says so"
    for path, body in (
        ("v2/models/sdxl/infer", b'{"inputs": []}'),
        ("v2/models/sdxl/generate", b'{"prompt": "a"}'),
        ("v2/repository/index", b"{}"),
        ("v2/models/sdxl/config", None),
        ("v2/models/stats", None),
        ("v2/systemsharedmemory/status", None),
        ("v2/trace/setting", None),
        ("v2/logging", None),
    ):
        with pytest.raises(urllib.error.HTTPError) as refused:
            urllib.request.urlopen(f"http://{secured.http_url}/{path}", data=body, timeout=10)
        assert refused.value.code == 403, path


def test_a_metric_says_when_the_certificate_expires(secured: Server, made: Certificates) -> None:
    """That of the tests holds for two days."""
    words = ("openssl", "x509", "-in", str(made.file("server.pem")), "-noout", "-enddate")
    end = subprocess.run(words, capture_output=True, text=True, check=True, timeout=30).stdout
    left = ssl.cert_time_to_seconds(end.strip().removeprefix("notAfter=")) - time.time()
    found = metrics_of(secured)[CERTIFICATE_EXPIRES.name]
    assert left - 120 <= found <= left + 1
    assert 0 < found <= 2 * 86_400


def test_the_administrator_is_heard(secured: Server) -> None:
    """Over the server's own socket, which no certificate opens."""
    found = {one.grpc_url: one for one in controlled_servers(secured.deployment.build_folder)}
    said = ask_to_reload(found[secured.grpc_url].folder, report=lambda _: None)
    assert said.startswith("nothing new: ")
    assert secured.process.administration.has_loaded(1, ["sdxl"])


def test_the_command_serves_and_drains(
    miniature: Deployment, made: Certificates, ours: Tls, tmp_path: Path
) -> None:
    files = [f"--tls-cert={made.file('server.pem')}", f"--tls-key={made.file('server.key')}"]
    files.append(f"--tls-ca={made.file('ca.pem')}")
    ports = ["--http-port=0", "--grpc-port=0", "--metrics-port=0", f"--log={tmp_path / 'log'}"]
    command = [sys.executable, "-m", "intaglio", "serve", str(CONFIG_FILE), "--production", *files, *ports]
    with subprocess.Popen(
        [*command, "--json"], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    ) as server:
        try:
            assert server.stdout is not None
            at = json.loads(server.stdout.readline())
            with Client(at["grpc"], tls=ours, deadline=60) as client:
                drawn = client.stream("a person in a room", **{**SHORT, "steps": 8})
                next(drawn)
                server.send_signal(signal.SIGTERM)
                assert drawn.result()[0].data, "what it had is finished"
            assert server.wait(60) == 0
            assert server.stderr is not None
            said = server.stderr.read()
            assert "expires in 2 days" in said
        finally:
            server.kill()
    refused = subprocess.run(
        [*command, "--host", "0.0.0.0"], capture_output=True, text=True, timeout=60, check=False
    )
    assert refused.returncode == 1
    assert "the packaged Triton 2.51 is for this machine's loopback only" in refused.stderr


def test_watch_shows_its_certificate(secured: Server, ours: Tls, tmp_path: Path) -> None:
    build = secured.deployment.build_folder
    entry = store_of(secured.deployment)[0].current().loras["night"]
    assert ready_server(build, secured.grpc_url, ours) == secured.grpc_url
    sample = drawn(secured.grpc_url, Samples(tmp_path, "a beach", 3, ours), "night", entry)
    assert sample.metadata["model"]["loras"]["night"] == entry.sha256
    with pytest.raises(NotDrawn, match="is not ready, so nothing was drawn"):
        ready_server(build, secured.grpc_url, None)
