"""`intaglio tune` on a real server."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import PIL.Image
import pytest
import yaml

from intaglio.contract.config import Deployment
from intaglio.serving.server import Server

pytestmark = pytest.mark.slow
SCENES = """
- {name: beach, prompt: a person waving on a beach, size: [192, 256], guidance_scale: 1}
- {name: snow, prompt: a person jumping in the snow, size: [192, 256], guidance_scale: 1}
"""
GRID = """
settings:
- inputs: {scheduler: dpmpp_2m_karras, steps: 8}
- inputs: {scheduler: dpmpp_2m_karras, steps: 15}
- inputs: {scheduler: dpmpp_2m_karras, steps: 15, control_guidance_end: 0.6}
"""


def tune(folder: Path, config: Path, *options: str) -> subprocess.CompletedProcess[str]:
    (folder / "scenes.yaml").write_text(SCENES)
    (folder / "grid.yaml").write_text(GRID)
    files = ["--prompts", "scenes.yaml", "--grid", "grid.yaml", "--out", "out"]
    command = [sys.executable, "-m", "intaglio", "tune", str(config), *files, *options]
    return subprocess.run(command, cwd=folder, capture_output=True, text=True, timeout=200, check=False)


def test_tune_chooses_presets_and_goes_on_where_it_stopped(
    miniature: Deployment, server: Server, tmp_path: Path
) -> None:
    config = miniature.folder / f"{miniature.name}.yaml"
    (tmp_path / "judge.py").write_text(
        "def judge(name, picture):\n    return {'light': picture.mean() / 255}\n"
    )
    options = ("--url", server.grpc_url, "--json", "--judge", "judge:judge")
    done = tune(tmp_path, config, *options)
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout)
    rows = {row["setting"]: row for row in found["rows"]}
    assert len(rows) == 6
    (few_steps,) = (row for row in rows.values() if "lcm" in row["setting"])
    assert few_steps["apart"], "a LoRA for few steps draws other pictures"
    assert found["left_out"] == [
        "left out: dpmpp_2m_karras 15, control_guidance_end 0.6: no scene has a control"
    ]
    assert rows["euler 30"]["ratio"]["value"] == 1.0
    assert rows["dpmpp_2m_karras 60"]["psnr"]["value"] > rows["dpmpp_2m_karras 8"]["psnr"]["value"] + 10
    assert found["converged"]["is_converged"]
    assert all(0 < row["judged"]["light"]["value"] < 1 for row in rows.values())
    written = yaml.safe_load((tmp_path / "out" / "presets.yaml").read_text())["quality"]
    assert list(written) == ["draft", "standard", "high", "ultra"]
    for name, preset in written.items():
        assert preset.pop("figures")["seconds"] > 0
        assert preset == found["presets"][name]
    for name in ("chart", "sheet"):
        PIL.Image.open(tmp_path / found["files"][name]).verify()

    pictures = {path: path.stat().st_mtime_ns for path in (tmp_path / "out" / "pictures").rglob("*.png")}
    assert len(pictures) == 2 * 7
    again = tune(tmp_path, config, "--quiet")  # everything is there: no server is asked
    assert again.returncode == 0, again.stderr
    assert again.stdout == "out/presets.yaml\n"
    assert pictures == {path: path.stat().st_mtime_ns for path in pictures}


def test_no_server_at_the_address_may_be_tried_again_later(miniature: Deployment, tmp_path: Path) -> None:
    done = tune(tmp_path, miniature.folder / f"{miniature.name}.yaml", "--url", "127.0.0.1:9")
    assert done.returncode == 75
    assert "no server is ready at 127.0.0.1:9" in done.stderr
