"""Triton's command line opens nothing that is not asked for."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

from intaglio.serving.arguments import TritonSettings, triton_arguments
from intaglio.serving.endpoints import Endpoints

SETTINGS = TritonSettings(
    repository=Path("/models"), endpoints=Endpoints(http_port=1, grpc_port=2, metrics_port=3), log=Path("log")
)


def arguments(settings: TritonSettings = SETTINGS, *, options: str = "") -> list[str]:
    return triton_arguments(
        settings, secret="s3cret", shared_memory_prefix="mine_", backends=None, options=options
    )


def test_administration_needs_the_secret() -> None:
    restricted = [word for word in arguments() if "restricted" in word]
    assert len(restricted) == 2
    for word in restricted:
        assert word.endswith("=model-repository,shared-memory,logging,trace:intaglio-admin=s3cret")


def test_a_server_that_is_not_reloadable_loads_nothing_later() -> None:
    assert "--model-control-mode=explicit" in arguments()
    assert "--model-control-mode=none" in arguments(replace(SETTINGS, reloadable=False))


def test_options_are_given_only_to_a_triton_that_has_them() -> None:
    assert "--allow-client-shm=false" in arguments(options="  --allow-client-shm <boolean>")
    assert not any("client-shm" in word for word in arguments())
