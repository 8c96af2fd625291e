"""A random SDXL of miniature size and data sets of 64x64 noise."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from diffusers import StableDiffusionXLPipeline
from huggingface_hub import constants
from PIL import Image
from tokenizers import Tokenizer
from transformers import CLIPTokenizer, CLIPTokenizerFast

from miniature import architecture

ROOT = Path(__file__).parents[2]
SIZE = 64
COUNT = 6


@pytest.fixture(autouse=True)
def _one_thread() -> None:
    """Losses are compared bit for bit, and the cores are shared."""
    torch.set_num_threads(1)


@pytest.fixture(autouse=True)
def _no_hub(monkeypatch: pytest.MonkeyPatch) -> None:
    """Nothing here may ask the hub, neither this process nor one that it starts."""
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)


@pytest.fixture(autouse=True)
def _one_day(monkeypatch: pytest.MonkeyPatch) -> None:
    """Files are compared byte for byte, and they hold the day."""
    monkeypatch.setenv("SOURCE_DATE_EPOCH", "1767225600")


@pytest.fixture(scope="session")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An SDXL folder with random weights in fp16."""
    torch.manual_seed(0)
    folder = tmp_path_factory.mktemp("training") / "model"
    first, second = architecture.make_text_encoders()
    pipeline = StableDiffusionXLPipeline(
        vae=architecture.make_autoencoder(),
        text_encoder=first,
        text_encoder_2=second,
        tokenizer=CLIPTokenizer.from_pretrained(str(ROOT / "miniature/model/tokenizer")),
        tokenizer_2=CLIPTokenizer.from_pretrained(str(ROOT / "miniature/model/tokenizer_2")),
        unet=architecture.make_unet(),
        scheduler=architecture.make_scheduler(),
        add_watermarker=False,
    )
    pipeline.to(torch.float16).save_pretrained(str(folder))
    return folder


def whole_tokenizers(folder: Path) -> None:
    """As transformers 5 writes them: tokenizer.json instead of vocab.json and merges.txt."""
    for name in ("tokenizer", "tokenizer_2"):
        fast: Tokenizer = CLIPTokenizerFast.from_pretrained(folder / name).backend_tokenizer
        fast.save(str(folder / name / "tokenizer.json"))
        for part in ("vocab.json", "merges.txt"):
            (folder / name / part).unlink(missing_ok=True)


def write_pairs(folder: Path, *, count: int = COUNT, size: int = SIZE, control: bool = True) -> Path:
    """Images with captions of one and two alternatives, and control images."""
    random = np.random.default_rng(0)
    (folder / "control").mkdir(parents=True)
    for index in range(count):
        Image.fromarray(random.integers(0, 256, (size, size, 3), np.uint8)).save(folder / f"{index:02d}.png")
        (folder / f"{index:02d}.txt").write_text(
            f"a thing {index}\nthing number {index}\n" if index % 2 else f"a thing {index}\n"
        )
        if control:
            Image.fromarray(random.integers(0, 256, (size, size, 3), np.uint8)).save(
                folder / "control" / f"{index:02d}.png"
            )
    return folder


def write_arrays(folder: Path) -> Path:
    """The same content as `write_pairs`, as arrays."""
    pairs = write_pairs(folder / "pairs")
    paths = sorted(pairs.glob("*.png"))
    np.save(folder / "images.npy", np.stack([np.asarray(Image.open(path)) for path in paths]))
    np.save(
        folder / "controls_pose.npy",
        np.stack([np.asarray(Image.open(pairs / "control" / path.name)) for path in paths]),
    )
    (folder / "captions.json").write_text(
        json.dumps([path.with_suffix(".txt").read_text().split("\n")[:-1] for path in paths])
    )
    return folder


@pytest.fixture
def pairs(tmp_path: Path) -> Path:
    """A sound folder of images, captions and control images."""
    return write_pairs(tmp_path / "pairs")


def write_two_sizes(folder: Path) -> Path:
    """Three images of 64x64 and three of 96x32, with control images, for buckets of 32 pixels."""
    random = np.random.default_rng(0)
    (folder / "control").mkdir(parents=True)
    for index in range(6):
        shape = (64, 64, 3) if index % 2 else (32, 96, 3)
        for place in (folder, folder / "control"):
            Image.fromarray(random.integers(0, 256, shape, np.uint8)).save(place / f"{index}.png")
        (folder / f"{index}.txt").write_text(f"a thing {index}")
    return folder


@pytest.fixture(scope="session")
def two_sizes(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """Keys of a run on images of two sizes."""
    folder = write_two_sizes(tmp_path_factory.mktemp("sizes") / "images")
    return {"data": {"folder": str(folder)}, "bucket_reso_steps": 32, "min_bucket_reso": 32}


@pytest.fixture(scope="session")
def arrays(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The same as arrays."""
    return write_arrays(tmp_path_factory.mktemp("arrays"))


@pytest.fixture
def keys(model: Path, arrays: Path, tmp_path: Path) -> Callable[..., dict[str, Any]]:
    """Configuration keys of a short run; keyword arguments replace them."""

    def make(**changes: Any) -> dict[str, Any]:
        base: dict[str, Any] = {
            "name": "tiny",
            "model": str(model),
            "data": {"folder": str(arrays)},
            "output": str(tmp_path / "out"),
            "resolution": SIZE,
            "steps": 2,
            "batch_size": 2,
            "learning_rate": 1e-3,
            "device": "cpu",
            "log_every": 1,
        }
        return base | changes

    return make
