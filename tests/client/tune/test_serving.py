"""Which server draws."""

from __future__ import annotations

from pathlib import Path

import pytest

from intaglio.errors import Unavailable
from intaglio_client.tune.serving import Asked, served

from .deployments import deployment


def test_an_address_without_a_server_is_named(tmp_path: Path) -> None:
    with (
        pytest.raises(Unavailable, match=r"no server is ready at 127\.0\.0\.1:9; without --url"),
        served(deployment(tmp_path), Asked("127.0.0.1:9"), report=print),
    ):
        pass
