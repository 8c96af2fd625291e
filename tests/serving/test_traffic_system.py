"""The traffic system's whole way on the miniature: labels of BDD100K become captions, captions and condition
maps a table, the table a ControlNet; a server draws a batch with it, and the batch becomes a video.

docs/datasets.md shows the same commands for SDXL.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml
from PIL import Image

from intaglio.cli import main
from intaglio.contract.config import Deployment, load_deployment
from intaglio.imaging.images import read_metadata
from intaglio.serving.endpoints import Endpoints
from intaglio.serving.server import Server
from intaglio_client.batch.manifest import read_manifest
from miniature.dataset import training_scene
from miniature.world import control_map, render

from .conftest import REPOSITORY

pytestmark = [pytest.mark.slow, pytest.mark.usefixtures("nothing_left")]
COUNT = 6
SIDE = 128
"""Pixels of a training picture: the smallest at which the miniature's own are read well."""


def intaglio(*words: object) -> None:
    """`intaglio WORDS`; it must end with 0."""
    assert main([*map(str, words)]) == 0


def write_dataset(folder: Path) -> None:
    """Pictures, segmentation maps and labels as BDD100K lays them out, of the miniature's world."""
    frames = []
    for number in range(COUNT):
        scene, _ = training_scene(number)
        rendered = render(scene)
        name = f"{number:08x}-{number:08x}"
        maps = control_map(scene, rendered, "segmentation")
        for place, pixels, suffix in (("images", rendered.picture, "jpg"), ("maps", maps, "png")):
            (folder / place).mkdir(parents=True, exist_ok=True)
            shown = Image.fromarray(pixels).resize((SIDE, SIDE), Image.Resampling.NEAREST)
            shown.save(folder / place / f"{name}.{suffix}")
        box = {"x1": 10.0, "y1": 10.0, "x2": 60.0, "y2": 120.0}
        frames.append(
            {
                "name": f"{name}.jpg",
                "attributes": {"weather": "snowy", "scene": "city street", "timeofday": "night"},
                "labels": [{"id": 0, "category": "person", "box2d": box}],
            }
        )
    Image.open(folder / "images" / f"{0:08x}-{0:08x}.jpg").save(folder / "images/again.jpg", quality=60)
    (folder / "labels.json").write_text(json.dumps(frames))


def collect(folder: Path) -> None:
    """Labels -> captions -> images without duplicates -> a table with conditions."""
    intaglio("data", "bdd-captions", folder / "labels.json", "-o", folder / "captions.jsonl")
    intaglio("data", "curate", folder / "images", "-o", folder / "chosen", "--min-side", 64)
    words = ("--kind", "controlnet", "--conditions", folder / "maps", "--captions", folder / "captions.jsonl")
    intaglio("data", "table", folder / "chosen", "-o", folder / "street", *words)
    rows = [json.loads(line) for line in (folder / "street/train/metadata.jsonl").read_text().splitlines()]
    assert len(rows) == COUNT
    assert {row["text"] for row in rows} == {
        "a dashcam photograph of a city street at night, snowy weather, with a pedestrian"
    }


def train(folder: Path) -> None:
    """Ten steps of a ControlNet."""
    keys = {
        "name": "segmentation",
        "model": str(REPOSITORY / "miniature/model"),
        "data": {"folder": "street"},
        "output": "trained",
        "resolution": SIDE,
        "steps": 10,
        "batch_size": 2,
        "learning_rate": 1e-3,
        "conditioning_embedding_out_channels": [8, 16, 24, 32],
        "device": "cpu",
    }
    (folder / "controlnet.yaml").write_text(yaml.safe_dump(keys))
    intaglio("train", "controlnet", folder / "controlnet.yaml")


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Everything up to the trained ControlNet."""
    made = tmp_path_factory.mktemp("traffic")
    write_dataset(made)
    collect(made)
    train(made)
    return made


@pytest.fixture(scope="module")
def serving(miniature: Deployment, folder: Path) -> Iterator[Server]:
    """configs/traffic.yaml with the miniature in place of SDXL, and the ControlNet that was trained."""
    values = yaml.safe_load((REPOSITORY / "configs/traffic.yaml").read_text())
    values |= {
        "base": [{"folder": str(REPOSITORY / "miniature/model")}],
        "controlnets": {"segmentation": {"folder": "trained/segmentation", "type": "segmentation"}},
        "profiles": {"sizes": [[128, 128]], "text_chunks": 1, "guidance": ["on"]},
        "precision": "auto",
        "runtime": "onnxruntime",
        "defaults": {"steps": 2, "guidance_scale": 5.0},
        "build": "build",
    }
    for key in ("vae", "loras", "fuse", "memory_limit_gib"):
        del values[key]
    (folder / "build").mkdir()
    (folder / "build/.stages").symlink_to(miniature.build / ".stages")
    (folder / "traffic.yaml").write_text(yaml.safe_dump(values))
    intaglio("build", folder / "traffic.yaml", "--quiet", "--keep-all")
    with Server(load_deployment(folder / "traffic.yaml"), endpoints=Endpoints()) as running:
        yield running


def batch(folder: Path) -> dict[str, Any]:
    """A specification of four pictures: two captions of the data, two of its maps."""
    maps = sorted((folder / "maps").glob("*.png"))[:2]
    return {
        "inputs": {
            "prompt": "a dashcam photograph of a city street at night, with a pedestrian",
            "seed": [1, 2],
            "controls": [f"type=segmentation,image={path}" for path in maps],
            "size": f"{SIDE}x{SIDE}",
        },
        "filters": [{"kind": "blank"}],
        "output": {"folder": str(folder / "drawn")},
    }


def test_the_traffic_system(serving: Server, folder: Path) -> None:
    (folder / "batch.yaml").write_text(yaml.safe_dump(batch(folder)))
    intaglio("batch", folder / "batch.yaml", "--url", serving.grpc_url, "--quiet")
    records = read_manifest(folder / "drawn/manifest.jsonl")
    assert [record["index"] for record in records] == [0, 1, 2, 3]
    assert all(record["accepted"] for record in records)
    pictures = [folder / "drawn" / record["file"] for record in records]
    metadata = [read_metadata(path.read_bytes()) or {} for path in pictures]
    assert [one["controls"][0]["type"] for one in metadata] == ["segmentation"] * 4
    pixels = [np.asarray(Image.open(path)) for path in pictures]
    assert len({one.tobytes() for one in pixels}) == 4, "seeds and maps both change the picture"
    intaglio("video", folder / "drawn", "-o", folder / "drawn.mp4", "--duration", 0.5, "--quiet")
    assert (folder / "drawn.mp4").stat().st_size > 1000
