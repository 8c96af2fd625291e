"""Which Python another process is started with."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest

from intaglio.interpreter import interpreter


def test_an_interpreter_is_found_in_a_program_that_embeds_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "executable", "/opt/triton_python_backend_stub")
    found = interpreter()
    assert os.access(found, os.X_OK)
    assert subprocess.run([found, "-c", "import intaglio"], check=False).returncode == 0
