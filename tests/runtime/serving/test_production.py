"""What `intaglio serve --production` demands and closes, without Triton."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from intaglio.cli import main
from intaglio.errors import ConfigError
from intaglio.serving.arguments import TritonSettings, private_options, triton_arguments
from intaglio.serving.endpoints import Endpoints
from intaglio.serving.installation import TritonInstallation
from intaglio.serving.production import check_triton, hardened
from intaglio.serving.server_tls import ServerTls

from .conftest import PLATE

TLS = ServerTls(certificate=Path("/tls/tls.crt"), key=Path("/tls/tls.key"), ca=Path("/tls/ca.crt"))
OPEN = Endpoints(host="0.0.0.0", http_port=1, grpc_port=2, metrics_port=3, tls=TLS)
PACKAGED = TritonInstallation(Path("/x/tritonserver"), Path("/x"))
ON_PATH = TritonInstallation(Path("/opt/tritonserver/bin/tritonserver"))


def arguments(endpoints: Endpoints) -> dict[str, str]:
    settings = TritonSettings(repository=Path("/models"), endpoints=endpoints, log=Path("log"))
    words = triton_arguments(settings, name="ours", shared_memory_prefix="m_", backends=None, options="")
    return dict(word.split("=", 1) for word in words if "=" in word)


def test_only_grpc_is_open_and_it_asks_for_certificates() -> None:
    given = arguments(hardened(OPEN))
    assert [given[f"--{name}-address"] for name in ("grpc", "http", "metrics")] == [
        "0.0.0.0", "127.0.0.1", "127.0.0.1",
    ]  # fmt: skip
    assert given["--grpc-use-ssl-mutual"] == "true"
    assert given["--grpc-server-cert"] == "/tls/tls.crt"
    assert given["--grpc-server-key"] == "/tls/tls.key"
    assert given["--grpc-root-cert"] == "/tls/ca.crt"


def test_a_proxy_may_have_an_address_of_health_and_a_collector_one_of_metrics() -> None:
    given = arguments(hardened(replace(OPEN, metrics_host="192.0.2.7")))
    assert given["--metrics-address"] == "192.0.2.7"
    assert given["--http-address"] == "127.0.0.1"
    given = arguments(hardened(replace(OPEN, http_host="192.0.2.7")))
    assert given["--http-address"] == "192.0.2.7"
    assert given["--metrics-address"] == "127.0.0.1"


def test_without_clients_certificates_encryption_alone() -> None:
    given = arguments(Endpoints(tls=ServerTls(certificate=TLS.certificate, key=TLS.key)))
    assert given["--grpc-use-ssl"] == "true"
    assert "--grpc-use-ssl-mutual" not in given
    assert not any("ssl" in name for name in arguments(Endpoints()))


def test_what_no_client_needs_is_closed() -> None:
    over_http, over_grpc = (word.split("=", 1)[1] for word in private_options("s3cret", production=True))
    closed = "model-repository,shared-memory,logging,trace,model-config,statistics"
    assert over_grpc == f"{closed}:intaglio-admin=s3cret"
    assert over_http == f"{closed},inference:intaglio-admin=s3cret"


def test_what_is_missing_is_named_with_the_command_that_makes_it() -> None:
    for tls, missing in (
        (None, "--tls-cert, --tls-key and --tls-ca"),
        (ServerTls(certificate=TLS.certificate, key=TLS.key), "--tls-ca"),
    ):
        with pytest.raises(ConfigError, match=f"^--production needs {missing}: .*openssl req -x509"):
            hardened(Endpoints(tls=tls))


def test_the_command_starts_nothing_without_a_certificate(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    config = tmp_path / "plate.yaml"
    config.write_text(PLATE)
    assert main(["serve", str(config), "--production"]) == 1
    assert capsys.readouterr().err.startswith("intaglio serve: --production needs --tls-cert, --tls-key and")
    files = ["--tls-cert", str(tmp_path / "a.pem"), "--tls-key", str(tmp_path / "a.key")]
    assert main(["serve", str(config), "--production", *files]) == 1
    assert "--production needs --tls-ca" in capsys.readouterr().err
    assert main(["serve", str(config), *files[:2]]) == 1
    assert "--tls-key is missing" in capsys.readouterr().err


def test_a_triton_with_published_weaknesses_stays_on_loopback(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("NVIDIA_TRITON_SERVER_VERSION", raising=False)
    for host in ("127.0.0.1", "localhost", "127.0.0.2"):
        check_triton(PACKAGED, [host])
    for host in ("0.0.0.0", "192.0.2.7", "gpu-host"):
        with pytest.raises(
            ConfigError, match=r"^--production: the packaged Triton 2\.51 is for this machine's"
        ):
            check_triton(PACKAGED, [host])
        with pytest.raises(ConfigError, match=r"^--production: nothing says how old the Triton on PATH is"):
            check_triton(ON_PATH, [host])
    monkeypatch.setenv("NVIDIA_TRITON_SERVER_VERSION", "26.06")
    with pytest.raises(ConfigError, match=r"^--production: Triton of image 26\.06 .* image 26\.07 or newer"):
        check_triton(ON_PATH, ["0.0.0.0"])
    for image in ("26.07", "27.01"):
        monkeypatch.setenv("NVIDIA_TRITON_SERVER_VERSION", image)
        check_triton(ON_PATH, ["0.0.0.0"])


@pytest.mark.parametrize("opened", ["http_host", "metrics_host"])
def test_no_address_of_such_a_triton_is_of_other_machines(opened: str) -> None:
    """HTTP and metrics may have addresses of their own."""
    inside = replace(OPEN, host="127.0.0.1")
    check_triton(PACKAGED, hardened(inside).hosts.values())
    at = hardened(replace(inside, **{opened: "0.0.0.0"}))
    with pytest.raises(ConfigError, match=r"^--production: the packaged Triton 2\.51"):
        check_triton(PACKAGED, at.hosts.values())
