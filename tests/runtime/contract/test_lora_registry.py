"""The registry of a user: what is refused, and what is written."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import yaml

from intaglio.contract.lora_registry import (
    LoraEntry,
    LoraRegistry,
    load_registry,
    write_registry,
)
from intaglio.errors import ConfigError

ENTRY: dict[str, Any] = {"file": "night.safetensors", "kind": "style"}


def registry(tmp_path: Path, **changes: Any) -> LoraRegistry:
    path = tmp_path / "loras.yaml"
    path.write_text(yaml.safe_dump({"loras": {"night": ENTRY | changes}}))
    return load_registry(path)


@pytest.mark.parametrize(
    ("change", "problem"),
    [
        ({"colour": 1}, "unknown key loras.night.colour; known keys: file"),
        ({"kind": "weather"}, "loras.night.kind"),
        ({"file": "night.pt"}, "must be .safetensors"),
        ({"hub": "a/b/c.safetensors"}, "exactly one of file, hub"),
        ({"file": None}, "exactly one of file, hub"),
        ({"file": None, "hub": "../etc/passwd"}, "loras.night.hub"),
        ({"weight": 2.0}, "weight 2 is outside bounds 0 to 1.5"),
        ({"weight": float("nan")}, "loras.night.weight"),
        ({"bounds": [1, 9]}, "loras.night.bounds"),
        ({"trigger_words": [""]}, "trigger_words"),
        ({"method": "lmc"}, "loras.night.method is 'lmc'; allowed: lcm, "),
    ],
)
def test_impossible_entries(tmp_path: Path, change: dict[str, Any], problem: str) -> None:
    with pytest.raises(ConfigError, match=problem) as refused:
        registry(tmp_path, **change)
    assert "loras.yaml" in str(refused.value)


@pytest.mark.parametrize(
    ("presets", "problem"),
    [
        ({"dusk": {"day": 1.0}}, "preset dusk: no LoRA day; LoRAs: night"),
        ({"dusk": {"night": 3.0}}, "night at 3 is outside its bounds 0 to 1.5"),
        ({"night": {"night": 1.0}}, "preset night: a LoRA has that id"),
        ({"dusk": {}}, "preset dusk: names no LoRA"),
    ],
)
def test_impossible_presets(tmp_path: Path, presets: Any, problem: str) -> None:
    (tmp_path / "loras.yaml").write_text(yaml.safe_dump({"loras": {"night": ENTRY}, "presets": presets}))
    with pytest.raises(ConfigError, match=problem):
        load_registry(tmp_path / "loras.yaml")


def test_written_and_read_again(tmp_path: Path) -> None:
    (tmp_path / "configs").mkdir()
    path = tmp_path / "configs" / "loras.yaml"
    path.write_text("# ours\n# two lines\nloras: {}\n")
    entry = LoraEntry(
        file=tmp_path / "weights/night.safetensors",
        kind="style",
        trigger_words=("at night",),
        rank=(4, 8),
        sha256="0" * 64,
    )
    written = LoraRegistry(loras={"night": entry}, presets={"dusk": {"night": 0.5}})
    write_registry(path, written)
    assert load_registry(path) == written
    assert path.read_text().startswith("# ours\n# two lines\nloras:\n")
    assert "file: ../weights/night.safetensors" in path.read_text()
    assert [item.name for item in path.parent.iterdir()] == ["loras.yaml"]
