"""The blocks of README and of docs/ run as they are written, with the ports of the test's server."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
import urllib.request
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from intaglio.contract.models import SDXL
from intaglio.imaging.images import read_metadata
from intaglio.imaging.pose_library import PoseLibrary
from intaglio.serving.server import Server
from intaglio_client.batch.manifest import read_manifest
from intaglio_client.bench.quality.extractors import read_extractors
from miniature import rules

from ..pages import ROOT, blocks

pytestmark = pytest.mark.slow


def run_blocks(page: str, server: Server, folder: Path) -> list[str]:
    """Run every Python and shell block of `page` in `folder`; their languages."""
    languages = []
    for language, text in blocks(page):
        if language:
            languages.append(language)
            code = text.replace("localhost:8001", server.grpc_url).replace("localhost:8000", server.http_url)
            if language == "bash":
                code = re.sub(r"^intaglio ", f"{sys.executable} -m intaglio ", code, flags=re.MULTILINE)
                code = code.replace("-m intaglio generate", f"-m intaglio generate --url {server.grpc_url}")
            if language not in ("bash", "python"):
                continue
            command = (
                [sys.executable, "-c", code]
                if language == "python"
                else ["bash", "-eu", "-o", "pipefail", "-c", code]
            )
            environment = {**os.environ, "no_proxy": "127.0.0.1,localhost"}
            done = subprocess.run(
                command, cwd=folder, env=environment, capture_output=True, text=True, timeout=120, check=False
            )
            assert done.returncode == 0, f"{text}\n{done.stdout}{done.stderr}"
    return languages


def test_readme_gets_one_picture_in_four_ways(server: Server, tmp_path: Path) -> None:
    assert run_blocks("README.md", server, tmp_path) == ["python", "python", "python", "bash"]
    ours, streamed, tritonclient, curl = (
        (tmp_path / f"{name}.png").read_bytes() for name in ("client", "streamed", "tritonclient", "curl")
    )
    metadata = read_metadata(ours)
    assert metadata is not None
    assert (metadata["seed"], metadata["controls"][0]["pose"]) == (7, "waving-01")
    assert ours == streamed == tritonclient == curl


def test_the_page_for_other_clients(server: Server, tmp_path: Path) -> None:
    assert run_blocks("docs/clients.md", server, tmp_path) == ["python"] * 4 + ["bash"] * 5
    assert (tmp_path / "streamed.png").read_bytes() == (tmp_path / "tritonclient-streamed.png").read_bytes()
    assert Image.open(tmp_path / "preview.png").size == (128, 128)
    assert (tmp_path / "async-1.png").read_bytes() != (tmp_path / "async-2.png").read_bytes()
    night = read_metadata((tmp_path / "night.png").read_bytes())
    assert night is not None
    assert night["loras"] == [{"id": "night", "weight": 0.8}]
    answered = json.loads((tmp_path / "metadata.json").read_text())
    assert {output["name"] for output in answered["outputs"]} == {"metadata", "timings"}
    (wrapped,) = json.loads((tmp_path / "wrapped.json").read_text())["outputs"]
    assert json.loads(wrapped["data"][0])["steps"] == 1, "as the page says"


ALONE: dict[str, dict[str, Any]] = {
    "timesteps": {"scheduler": "lcm"},
    "sigmas": {"scheduler": "euler"},
    "sparse_begin": {"scheduler": "euler", "sparse_every": 2, "steps": 4},
    "sparse_every": {"scheduler": "euler", "steps": 4},
    "eta": {"scheduler": "ddim", "steps": 2},
}
"""Inputs that exclude others of the table, and what each needs beside it."""


def drawn_from_json(server: Server, values: dict[str, Any]) -> Any:
    """The metadata of a picture that is asked for in JSON."""
    inputs = []
    for name, value in values.items():
        datatype = SDXL.input(name).datatype.removeprefix("TYPE_").replace("STRING", "BYTES")
        one = bool(value) if datatype == "BOOL" else value
        data = list(value) if isinstance(value, tuple) else [one]
        inputs.append({"name": name, "datatype": datatype, "shape": [len(data)], "data": data})
    body = json.dumps({"inputs": inputs, "outputs": [{"name": "metadata"}]}).encode()
    request = urllib.request.Request(f"http://{server.http_url}/v2/models/sdxl/infer", data=body)
    with urllib.request.urlopen(request, timeout=60) as answer:
        (output,) = json.load(answer)["outputs"]
    return json.loads(output["data"][0])


def test_the_server_takes_the_example_of_every_input(server: Server) -> None:
    """Together, but for the bytes of an image and what excludes others, and with fewer steps, to be fast."""
    examples: dict[str, Any] = {port.name: port.example for port in SDXL.inputs if port.name != "images"}
    together = {name: value for name, value in examples.items() if name not in ALONE} | {"steps": 2}
    said = drawn_from_json(server, together)
    assert (said["seed"], said["guidance_begin"], said["trigger_words"]) == (7, 0.1, False)
    for name, others in ALONE.items():
        said = drawn_from_json(server, {"prompt": "a person", name: examples[name], **others})
        value = said[name]
        assert (tuple(value) if isinstance(value, list) else value) == examples[name]


def test_the_page_of_the_command_line(server: Server, tmp_path: Path) -> None:
    for name in ("configs", "miniature"):
        (tmp_path / name).symlink_to(ROOT / name)
    assert run_blocks("docs/commands.md", server, tmp_path) == ["bash"]


def test_the_page_of_controls_and_its_pictures(server: Server, tmp_path: Path) -> None:
    """In a copy of the configurations, since the page adds a pose. Another processor may round otherwise."""
    shutil.copytree(ROOT / "configs", tmp_path / "configs")
    (tmp_path / "miniature").symlink_to(ROOT / "miniature")
    languages = run_blocks("docs/controls.md", server, tmp_path)
    assert languages == ["yaml", "bash", "yaml", "bash", "python", "bash", "yaml"]
    assert Image.open(tmp_path / "fitted.png").size == (192, 256)
    assert read_metadata((tmp_path / "again.png").read_bytes())["controls"][0]["preprocess"] == "pose"
    for name in ("photo", "pose", "canny", "drawn", "sheet"):
        made, shown = (
            np.asarray(Image.open(folder / f"{name}.png").convert("RGB"), dtype=np.float64)
            for folder in (tmp_path, ROOT / "docs/controls")
        )
        assert made.shape == shown.shape, name
        assert np.abs(made - shown).mean() < 4, name
    assert (tmp_path / "configs/poses/my-wave.json").is_file()
    truth = PoseLibrary(ROOT / "configs/poses").load("waving-01")[0, :, :2] * 256
    reading = rules.read_figure(np.asarray(Image.open(tmp_path / "drawn.png").convert("RGB")))
    joints = rules.find_keypoints(reading, top="green", bottom="black", skin="brown")
    right, judged = rules.pck(joints, truth)
    assert right / judged >= 0.8, "it stands in the pose that the photograph was made in"


def test_the_page_of_loras(server: Server, tmp_path: Path) -> None:
    """In a copy of the configurations, since the page adds a LoRA."""
    shutil.copytree(ROOT / "configs", tmp_path / "configs", ignore=shutil.ignore_patterns("poses"))
    (tmp_path / "configs/poses").symlink_to(ROOT / "configs/poses")
    (tmp_path / "miniature").symlink_to(ROOT / "miniature")
    assert run_blocks("docs/loras.md", server, tmp_path) == ["bash", "bash", "yaml", "bash", "python"]
    assert "moonlight" in (tmp_path / "configs/loras.yaml").read_text()
    first, again, preset, python = (
        (tmp_path / f"{name}.png").read_bytes() for name in ("set", "again", "preset", "python")
    )
    assert first == again == preset == python


def test_the_page_of_batches(server: Server, tmp_path: Path) -> None:
    (spec,) = (text for language, text in blocks("docs/batches.md") if language == "yaml")
    (tmp_path / "walk.yaml").write_text(spec)
    assert run_blocks("docs/batches.md", server, tmp_path) == ["yaml", "bash", "python"]
    records = read_manifest(tmp_path / "walk/manifest.jsonl")
    assert len(records) == 12, "as the page says"
    assert all((tmp_path / "walk" / record["file"]).is_file() for record in records)
    assert [len(record["inputs"].get("loras", ())) for record in records] == [0] * 4 + [1] * 4 + [2] * 4


@pytest.mark.long
def test_the_page_of_benchmarking(server: Server, perf_analyzer_folder: Path, tmp_path: Path) -> None:
    (tmp_path / "build/tools").mkdir(parents=True)
    (tmp_path / "build/tools/perf_analyzer").symlink_to(perf_analyzer_folder)
    assert run_blocks("docs/benchmarking.md", server, tmp_path) == ["bash", "yaml"]
    assert (tmp_path / "measured/growth.png").is_file()
    (written,) = (text for language, text in blocks("docs/benchmarking.md") if language == "yaml")
    extractors = tmp_path / "extractors.yaml"
    extractors.write_text(written)
    assert read_extractors(extractors).clip is not None


def test_the_page_of_presets(server: Server, tmp_path: Path) -> None:
    for name in ("configs", "miniature"):
        (tmp_path / name).symlink_to(ROOT / name)
    assert run_blocks("docs/presets.md", server, tmp_path) == ["yaml", "bash", "python"]
    shell, python = ((tmp_path / f"{name}.png").read_bytes() for name in ("preset", "python"))
    assert shell == python
    said = read_metadata(python)
    assert said is not None
    assert said["prompt"] == "a drawing of a person waving on a beach"
    assert (said["steps"], said["scheduler"]) == (2, "dpmpp_2m_karras"), "the caller's, the preset's"
    assert (said["preset"], said["style"], said["scene"]) == ("draft", "drawing", "beach")
