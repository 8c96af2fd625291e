"""`intaglio bench quality` and `parity` on real servers: a planted loss is seen, and nothing where there is
nothing.
"""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import safetensors.torch
import torch
import yaml

from intaglio.contract.config import Deployment, load_deployment
from intaglio.serving.endpoints import Endpoints
from intaglio.serving.server import Server
from miniature.tuning import write_scenes

from .conftest import REPOSITORY, fused_build

JUDGE = ("--judge", "miniature.tuning:judge")
SCENES = 10


def run(*arguments: str, folder: Path) -> tuple[int, Any]:
    """What a command of `bench` answers as JSON, with the repository as the place of the judge's module."""
    command = [sys.executable, "-m", "intaglio", "bench", *arguments, "--json", "--out", str(folder / "out")]
    done = subprocess.run(command, cwd=REPOSITORY, capture_output=True, text=True, timeout=400, check=False)
    assert done.stdout, done.stderr
    return done.returncode, json.loads(done.stdout)


def config_of(deployment: Deployment) -> str:
    return str(deployment.folder / f"{deployment.name}.yaml")


@pytest.mark.long
def test_an_option_is_judged_beside_no_option(miniature: Deployment, server: Server, tmp_path: Path) -> None:
    scenes = write_scenes(tmp_path / "scenes", 2, mara=2)
    (tmp_path / "options.yaml").write_text(yaml.safe_dump({"settings": [{"inputs": {"steps": 3}}]}))
    options = ["--prompts", str(scenes), "--options", str(tmp_path / "options.yaml"), *JUDGE]
    code, found = run("quality", config_of(miniature), "--url", server.grpc_url, *options, folder=tmp_path)
    assert code == 0
    rows = {row["setting"]: row for row in found["rows"]}
    assert set(rows) == {"no option", "3", "lora lcm"}
    plain = rows["no option"]["judged"]
    assert {name: one["n"] for name, one in plain.items()} == dict.fromkeys(
        ("attire", "place", "pck", "identity"), 2
    )
    assert plain["identity"]["value"] > 0.01, "Mara's colours are seen"
    assert rows["3"]["ratio"]["value"] < 1
    assert rows["3"]["psnr"]["value"] < 30
    for path in found["files"].values():
        assert Path(path).stat().st_size > 0


def noise_like(lora: Path, path: Path) -> Path:
    """A LoRA of noise with the layers of another."""
    torch.manual_seed(0)
    tensors = safetensors.torch.load_file(lora)
    drawn = {name: torch.randn_like(one) * one.float().std() * 4 for name, one in tensors.items()}
    safetensors.torch.save_file(drawn, path)
    return path


@pytest.mark.long
def test_the_gate_sees_worse_pictures_and_nothing_else(
    miniature: Deployment, server: Server, tmp_path: Path
) -> None:
    """Worse is a build that fuses a LoRA of noise. Two servers of one build draw equal pictures."""
    scenes = write_scenes(tmp_path / "scenes", SCENES)
    noise = noise_like(REPOSITORY / "miniature/loras/night.safetensors", tmp_path / "noise.safetensors")
    pose = {"folder": str(REPOSITORY / "miniature/controlnets/pose"), "type": "pose"}
    fused_build(
        miniature,
        tmp_path,
        {"noise": 1.0},
        loras={"noise": {"path": str(noise)}},
        controlnets={"pose": pose},
        profiles={"sizes": [[256, 256]], "text_chunks": 1, "guidance": ["on"]},
    )
    worse = load_deployment(tmp_path / "fused-noise.yaml")
    asked = [config_of(miniature), "--prompts", str(scenes), *JUDGE, "--a", server.grpc_url]
    for deployment, expected in ((worse, (1, "worse")), (miniature, (0, "equal"))):
        with Server(deployment, endpoints=Endpoints(), log=tmp_path / f"{deployment.name}.log") as other:
            code, found = run("parity", *asked, "--b", other.grpc_url, folder=tmp_path)
        assert (code, found["verdict"]) == expected, found["losses"]
        assert (found["equal"] == SCENES) == (expected[1] == "equal")
