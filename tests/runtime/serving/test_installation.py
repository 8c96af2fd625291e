"""Where Triton is found."""

from __future__ import annotations

from pathlib import Path

import pytest

from intaglio.serving import installation


def test_a_triton_on_the_path_comes_first(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(installation.shutil, "which", lambda name: "/opt/tritonserver/bin/tritonserver")
    found = installation.find_triton()
    assert (found.origin, found.stub, found.make_backend_folder(Path("/nowhere"))) == ("PATH", None, None)
