"""A server before it is started; tests/serving starts a real one."""

from __future__ import annotations

from pathlib import Path

import pytest

from intaglio.errors import Unavailable
from intaglio.serving.arguments import TritonSettings
from intaglio.serving.endpoints import Endpoints
from intaglio.serving.triton_server import Restarts, TritonServer


def test_delays_double_up_to_the_longest() -> None:
    restarts = Restarts(first_delay=1.0, longest_delay=5.0)
    assert [restarts.delay(earlier) for earlier in range(5)] == [1.0, 2.0, 4.0, 5.0, 5.0]


def test_what_only_a_running_server_has(tmp_path: Path) -> None:
    settings = TritonSettings(repository=tmp_path, endpoints=Endpoints(), log=tmp_path / "log")
    server = TritonServer(settings)
    for name in ("process", "workspace"):
        with pytest.raises(Unavailable, match="Triton is not running"):
            getattr(server, name)
    server.request_stop()
    assert server.stopping
    server.close()
