"""Triton's command line opens nothing that is not asked for."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

from intaglio.serving.arguments import TritonSettings, private_options, triton_arguments
from intaglio.serving.endpoints import Endpoints

SETTINGS = TritonSettings(
    repository=Path("/models"), endpoints=Endpoints(http_port=1, grpc_port=2, metrics_port=3), log=Path("log")
)


def arguments(settings: TritonSettings = SETTINGS, *, options: str = "") -> list[str]:
    return triton_arguments(
        settings, name="ours", shared_memory_prefix="mine_", backends=None, options=options
    )


def test_administration_needs_the_secret() -> None:
    assert not any("restricted" in word for word in arguments())
    options = private_options("s3cret")
    assert {word.partition("=")[0] for word in options} == {
        "--http-restricted-api", "--grpc-restricted-protocol",
    }  # fmt: skip
    for word in options:
        assert word.endswith("=model-repository,shared-memory,logging,trace:intaglio-admin=s3cret")


def test_a_server_says_who_it_is() -> None:
    assert "--id=ours" in arguments()


def test_a_server_that_is_not_reloadable_loads_nothing_later() -> None:
    assert "--model-control-mode=explicit" in arguments()
    assert "--model-control-mode=none" in arguments(replace(SETTINGS, reloadable=False))


def test_options_are_given_only_to_a_triton_that_has_them() -> None:
    assert "--allow-client-shm=false" in arguments(options="  --allow-client-shm <boolean>")
    assert not any("client-shm" in word for word in arguments())


def test_a_client_that_froze_is_noticed_within_a_minute() -> None:
    milliseconds = dict(word.split("=") for word in arguments() if word.startswith("--grpc-keepalive"))
    assert sum(map(int, milliseconds.values())) <= 60_000
    assert "--grpc-http2-max-pings-without-data=0" in arguments()
    own = arguments(
        replace(SETTINGS, options=["--grpc-keepalive-time=5"]), options="\n  --grpc-keepalive-time <integer>"
    )
    assert [word for word in own if word.startswith("--grpc-keepalive-time=")] == ["--grpc-keepalive-time=5"]
