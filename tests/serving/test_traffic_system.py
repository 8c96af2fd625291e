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
from intaglio_client.batch.manifest import Record, read_manifest
from miniature.agreement import agreement
from miniature.dataset import training_scene
from miniature.world import control_map, render

from ..client.video.decoding import read_video
from .conftest import REPOSITORY

pytestmark = [pytest.mark.long, pytest.mark.usefixtures("nothing_left")]
COUNT = 6
RESOLUTION = 64
"""Pixels that are trained on."""
NETWORK = REPOSITORY / "miniature/detectors/nanodet.onnx"
CONFIDENCE = 0.3


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
            Image.fromarray(pixels).save(folder / place / f"{name}.{suffix}")
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
    """Ten steps of a ControlNet, which begins as the miniature's."""
    keys = {
        "name": "segmentation",
        "model": str(REPOSITORY / "miniature/model"),
        "data": {"folder": "street"},
        "output": "trained",
        "resolution": RESOLUTION,
        "steps": 10,
        "batch_size": 1,
        "init": str(REPOSITORY / "miniature/controlnets/segmentation"),
        "learning_rate": 1e-5,
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
        "profiles": {"sizes": [[256, 256]], "text_chunks": 1, "guidance": ["on"]},
        "precision": "auto",
        "runtime": "onnxruntime",
        "defaults": {"steps": 8, "guidance_scale": 5.0},
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
    """A specification of four pictures: two seeds, two maps of the data."""
    return {
        "inputs": {
            "prompt": "a person in a red sweater and blue trousers on a street downtown",
            "seed": [1, 2],
            "controls": [f"type=segmentation,image={path}" for path in maps_of(folder)],
        },
        "filters": [
            {"kind": "blank"},
            {
                "kind": "detector",
                "network": str(NETWORK),
                "confidence": CONFIDENCE,
                "require": [{"class": "person"}],
            },
        ],
        "output": {"folder": str(folder / "drawn"), "apart": True},
    }


def maps_of(folder: Path) -> list[Path]:
    return sorted((folder / "maps").glob("*.png"))[:2]


def test_the_traffic_system(serving: Server, folder: Path) -> None:
    (folder / "batch.yaml").write_text(yaml.safe_dump(batch(folder), sort_keys=False))
    intaglio("batch", folder / "batch.yaml", "--url", serving.grpc_url, "--quiet")
    records = read_manifest(folder / "drawn/manifest.jsonl")
    assert [record["index"] for record in records] == [0, 1, 2, 3]
    check_pictures(records, folder)
    check_labels(records, folder)
    accepted = [record for record in records if record["accepted"]]
    intaglio("video", folder / "drawn", "-o", folder / "drawn.mp4", "--fps", 4, "--duration", 0.5, "--quiet")
    assert len(read_video(folder / "drawn.mp4").frames) == 2 * len(accepted)


def check_pictures(records: list[Record], folder: Path) -> None:
    """The pictures show the maps that they were asked for, drawn by the ControlNet that was trained here."""
    weights = "diffusion_pytorch_model.safetensors"
    before = REPOSITORY / "miniature/controlnets/segmentation" / weights
    assert (folder / "trained/segmentation" / weights).read_bytes() != before.read_bytes()
    maps = [np.asarray(Image.open(path)) for path in maps_of(folder)]
    files = [folder / "drawn" / record["file"] for record in records]
    metadata = [read_metadata(file.read_bytes()) or {} for file in files]
    assert [[control["type"] for control in one["controls"]] for one in metadata] == [["segmentation"]] * 4
    pixels = [np.asarray(Image.open(file)) for file in files]
    assert len({one.tobytes() for one in pixels}) == 4
    own, other = (
        np.mean([agreement("segmentation", one, maps[(i + shift) % 2]) for i, one in enumerate(pixels)])
        for shift in (0, 1)
    )
    assert own > 1.5 * other


def check_labels(records: list[Record], folder: Path) -> None:
    """The filter accepts what shows a person, and `annotate` writes the boxes that the manifest has."""
    words = ("--network", NETWORK, "--confidence", CONFIDENCE, "--quiet")
    for place in ("accepted", "rejected"):
        if (folder / "drawn" / place).is_dir():
            intaglio("annotate", folder / "drawn" / place, "-o", folder / "labelled" / place, *words)
    found = 0
    for record in records:
        boxes = record["boxes"].get("detector", [])
        assert record["accepted"] == any(box["class_name"] == "person" for box in boxes)
        place, name = record["file"].split("/")
        text = (folder / "labelled" / place / "labels" / name).with_suffix(".txt").read_text()
        assert [line.split()[0] for line in text.splitlines()] == [str(box["class_id"]) for box in boxes]
        found += len(boxes)
    assert found, "nothing was found in any picture"
