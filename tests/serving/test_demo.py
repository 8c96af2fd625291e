"""`intaglio demo`, what `make demo` runs."""

from __future__ import annotations

import subprocess
import sys
import time
from pathlib import Path

import pytest

from intaglio.config import Deployment
from intaglio.images import read_metadata

pytestmark = [pytest.mark.slow, pytest.mark.usefixtures("nothing_left")]
BUDGET_SECONDS = 40.0
"""Installed and built, on two CPU cores."""


def test_the_demo_draws_and_says_where_the_time_went(miniature: Deployment, tmp_path: Path) -> None:
    config, out = miniature.folder / f"{miniature.name}.yaml", tmp_path / "out" / "demo.png"
    started = time.perf_counter()
    command = [sys.executable, "-m", "intaglio", "demo", str(config), "--out", str(out)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=120, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    assert time.perf_counter() - started < BUDGET_SECONDS
    metadata = read_metadata(out.read_bytes())
    assert metadata is not None
    assert metadata["controls"][0]["pose"]
    assert [lora["id"] for lora in metadata["loras"]] == list(miniature.fused)
    for row in ("build", "start Triton", "denoise", "Triton and gRPC", "stop Triton", "total", "server memory"):
        assert row in done.stdout


def test_a_build_that_fails_ends_the_demo(tmp_path: Path) -> None:
    config = tmp_path / "broken.yaml"
    config.write_text("base: [{folder: no-such-model}]\nprofiles: {sizes: [[64, 64]]}\n")
    done = subprocess.run([sys.executable, "-m", "intaglio", "demo", str(config)], capture_output=True, text=True, timeout=120, check=False)
    assert done.returncode == 2
    assert "Traceback" not in done.stderr
    assert "no-such-model" in done.stderr + done.stdout
