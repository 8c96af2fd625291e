"""Triton's command line opens nothing that is not asked for."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from intaglio.errors import InvalidRequest
from intaglio.serving.arguments import TritonSettings, private_options, triton_arguments
from intaglio.serving.endpoints import Endpoints
from intaglio.telemetry.settings import TelemetrySettings

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


def test_no_message_is_kept_for_reuse() -> None:
    assert "--grpc-infer-allocation-pool-size=0" in arguments()


def test_a_client_that_froze_is_noticed_within_a_minute() -> None:
    milliseconds = dict(word.split("=") for word in arguments() if word.startswith("--grpc-keepalive-time"))
    assert sum(map(int, milliseconds.values())) <= 60_000
    assert "--grpc-http2-max-pings-without-data=0" in arguments()
    assert "--grpc-keepalive-permit-without-calls=1" in arguments(), "also one that asks for nothing"
    own = arguments(
        replace(SETTINGS, options=["--grpc-keepalive-time=5"]), options="\n  --grpc-keepalive-time <integer>"
    )
    assert [word for word in own if word.startswith("--grpc-keepalive-time=")] == ["--grpc-keepalive-time=5"]


TRACED = replace(
    SETTINGS, telemetry=TelemetrySettings(traces="http://collector:4318/v1/traces"), trace_every=100
)
TRACE_HELP = "\n  --trace-config <<string>,<string>=<string>>"


def test_triton_sends_its_spans_to_the_collector_of_the_stages() -> None:
    assert not any("trace-config" in word for word in arguments())
    assert [word.removeprefix("--trace-config=") for word in arguments(TRACED) if "trace-config" in word] == [
        "mode=opentelemetry",
        "opentelemetry,url=http://collector:4318/v1/traces",
        "opentelemetry,resource=service.name=intaglio",
        "level=TIMESTAMPS",
        "rate=100",
    ]


def test_traces_are_set_in_one_place() -> None:
    options = ["--trace-config=rate=1"]
    assert options[0] in arguments(replace(SETTINGS, options=options), options=TRACE_HELP)
    with pytest.raises(InvalidRequest, match=r"--trace-config beside server.traces"):
        arguments(replace(TRACED, options=options), options=TRACE_HELP)
