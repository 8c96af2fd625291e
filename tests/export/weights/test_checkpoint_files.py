"""The files that diffusers and transformers load, and what is said where they would find none."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from intaglio.errors import BuildError
from intaglio_export.weights.checkpoint_files import choose_files, network_files

STEM = "diffusion_pytorch_model"
SHARDS = [f"{STEM}-0000{number}-of-00002.safetensors" for number in (1, 2)]
INDEX = f"{STEM}.safetensors.index.json"


@pytest.mark.parametrize(
    ("component", "names", "chosen", "variant"),
    [
        ("unet", [f"{STEM}.safetensors", f"{STEM}.fp16.safetensors"], [f"{STEM}.safetensors"], None),
        ("unet", [f"{STEM}.fp16.safetensors"], [f"{STEM}.fp16.safetensors"], "fp16"),
        ("unet", [INDEX, *SHARDS], [INDEX, *SHARDS], None),
        ("unet", [INDEX, *SHARDS, f"{STEM}.safetensors"], [INDEX, *SHARDS], None),
        ("text_encoder", ["model.safetensors", "pytorch_model.bin"], ["model.safetensors"], None),
        ("text_encoder_2", ["model.fp16.safetensors"], ["model.fp16.safetensors"], "fp16"),
        (
            "unet",
            [f"{STEM}.safetensors.index.fp16.json", f"{STEM}.fp16-00001-of-00001.safetensors"],
            [f"{STEM}.safetensors.index.fp16.json", f"{STEM}.fp16-00001-of-00001.safetensors"],
            "fp16",
        ),
    ],
)
def test_the_files_are_those_of_the_libraries(
    component: str, names: list[str], chosen: list[str], variant: str | None
) -> None:
    found = choose_files(component, names)
    assert found is not None
    assert (list(found.names), found.variant) == (chosen, variant)


def filled(folder: Path, names: list[str], weights: dict[str, str] | None = None) -> Path:
    folder.mkdir(exist_ok=True)
    for name in names:
        (folder / name).write_bytes(b"")
    if weights is not None:
        (folder / INDEX).write_text(json.dumps({"weight_map": weights}))
    return folder


def test_every_shard_is_there(tmp_path: Path) -> None:
    weights = dict(zip("ab", SHARDS, strict=True))
    folder = filled(tmp_path, SHARDS, weights)
    assert list(network_files(folder, "unet").names) == [INDEX, *SHARDS]
    (folder / SHARDS[1]).unlink()
    with pytest.raises(BuildError, match=f"{SHARDS[1]} is missing, which {INDEX} names; fetch"):
        network_files(folder, "unet")


@pytest.mark.parametrize(
    ("component", "names", "message"),
    [
        ("controlnet", ["OpenPoseXL2.safetensors"], f"loads {STEM}.safetensors, but there is OpenPoseXL2"),
        ("controlnet", ["model.safetensors"], "but there is model.safetensors; rename it"),
        ("unet", [f"{STEM}.bin"], f"no .safetensors weights; {STEM}.bin is pickled"),
        ("unet", [], "no .safetensors weights"),
        ("text_encoder", [f"{STEM}.safetensors"], "diffusers loads model.safetensors"),
    ],
)  # fmt: skip
def test_what_is_there_instead_is_named(
    tmp_path: Path, component: str, names: list[str], message: str
) -> None:
    with pytest.raises(BuildError, match=message):
        network_files(filled(tmp_path, names), component)
