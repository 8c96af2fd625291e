"""A deployment's server, without Triton."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from intaglio.contract.config import load_deployment
from intaglio.errors import Unavailable
from intaglio.serving.server import Server

from .conftest import PLATE


def test_a_server_that_cannot_load_says_so(tmp_path: Path) -> None:
    config = tmp_path / "plate.yaml"
    config.write_text(PLATE)
    server = Server(load_deployment(config))
    server.settings = replace(server.settings, reloadable=False)
    with pytest.raises(Unavailable, match="does not let Triton's secret be hidden"):
        server.reload()
