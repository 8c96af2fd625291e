"""Engines ahead of time with the newest TensorRT-RTX that the extra allows.

The suite itself runs with the release that constraints.txt names (tests/export/engines/test_tensorrt.py).
"""

from __future__ import annotations

import json
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest
import yaml

pytestmark = pytest.mark.fresh
TARGETS = ("sm86", "sm89", "sm120")


def test_the_newest_release_builds_for_every_card(environment: Callable[[str], Path], tmp_path: Path) -> None:
    """SDXL's blocks, fewer and narrower, with weights of a seed: every kind of network."""
    python = environment("client,export,serve,tensorrt,torch,train")
    config = tmp_path / "reduced.yaml"
    seeded = {"architecture": "sdxl-reduced", "seed": 0}
    values = {
        "base": [seeded],
        "controlnets": {"pose": {**seeded, "type": "pose"}},
        "profiles": {"sizes": [[64, 64]], "text_chunks": 1, "guidance": ["on"]},
        "precision": "fp16",
        "build": "build",
    }
    config.write_text(yaml.safe_dump(values))
    code = "from importlib.metadata import version; print(version('tensorrt-rtx-cu12'))"
    release = subprocess.run([python, "-c", code], capture_output=True, text=True, check=True).stdout.strip()
    assert release.startswith("1.7."), "the range of the extra ends with it"
    for target in TARGETS:
        command = [python, "-m", "intaglio", "build", str(config), "--target", target]
        done = subprocess.run(command, capture_output=True, text=True, cwd=tmp_path, check=False)
        assert done.returncode == 0, done.stdout + done.stderr
        manifest = json.loads((tmp_path / f"build/reduced-{target}/manifest.json").read_text())
        assert manifest["versions"]["tensorrt-rtx"] == release
        for name, network in manifest["networks"].items():
            plan = tmp_path / f"build/reduced-{target}" / network["path"]
            assert plan.stat().st_size > 10_000, name
