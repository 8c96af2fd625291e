"""Character presets."""

from __future__ import annotations

from pathlib import Path

import pytest
import yaml

from intaglio.contract.lora_registry import (
    load_registry,
)
from intaglio.errors import ConfigError
from intaglio_client.generate.characters import load_character, load_characters

ROOT = Path(__file__).parents[3]


def test_committed_characters_name_committed_loras() -> None:
    known = load_registry(ROOT / "configs/loras.yaml")
    for character in load_characters(ROOT / "configs/characters.yaml").values():
        assert set(character.loras) <= {*known.loras, *known.presets}


def test_characters(tmp_path: Path) -> None:
    path = tmp_path / "characters.yaml"
    path.write_text(
        yaml.safe_dump({"characters": {"ann": {"prompt": "ann {prompt}, film", "loras": {"ann": 0.8}}}})
    )
    ann = load_character(path, "ann")
    assert ann.prompt_of("runs {fast}") == "ann runs {fast}, film"
    with pytest.raises(ConfigError, match="no character 'bob'; characters: ann"):
        load_character(path, "bob")
    for wrong, problem in (
        ({"prompt": "no place"}, "prompt"),
        ({"prompt": "{prompt}", "reference_images": ["a.png"]}, "a.png: no such file"),
    ):
        path.write_text(yaml.safe_dump({"characters": {"ann": wrong}}))
        with pytest.raises(ConfigError, match=problem):
            load_characters(path)
