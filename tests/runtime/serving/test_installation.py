"""Where Triton is found."""

from __future__ import annotations

from pathlib import Path

import pytest

from intaglio.errors import Unavailable
from intaglio.serving import installation


def test_a_triton_on_the_path_comes_first(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(installation.shutil, "which", lambda name: "/opt/tritonserver/bin/tritonserver")
    found = installation.find_triton()
    assert (found.origin, found.stub, found.make_backend_folder(Path("/nowhere"))) == ("PATH", None, None)


def test_a_triton_that_hangs_is_unavailable(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    program = tmp_path / "tritonserver"
    program.write_text("#!/bin/sh\nexec sleep 20\n")
    program.chmod(0o755)
    monkeypatch.setattr(installation, "_HELP_SECONDS", 0.1)
    with pytest.raises(Unavailable, match=r"--help has not ended after 0\.1 s"):
        _ = installation.TritonInstallation(program).options
