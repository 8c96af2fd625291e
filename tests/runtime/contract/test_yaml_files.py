"""What is wrong with a YAML file is said with its path and the field's name."""

from __future__ import annotations

from pathlib import Path

import pytest
from pydantic import TypeAdapter, ValidationError, field_validator

from intaglio.contract.yaml_files import RegistryId, Strict, read_yaml, resolved_path, validated
from intaglio.errors import ConfigError


class Plate(Strict):
    """A value with a path."""

    picture: Path
    copies: int = 1

    _picture = field_validator("picture")(resolved_path)


def test_every_problem_is_named(tmp_path: Path) -> None:
    path = tmp_path / "plate.yaml"
    with pytest.raises(ConfigError, match=r"plate\.yaml: key picture is missing; .*unknown key colour"):
        validated(Plate, {"colour": "red"}, path)


def test_paths_start_at_the_file(tmp_path: Path) -> None:
    plate = validated(Plate, {"picture": "../a.png"}, tmp_path / "configs" / "plate.yaml")
    assert plate.picture == tmp_path / "a.png"
    assert validated(Plate, {"picture": "/a.png"}, tmp_path / "plate.yaml").picture == Path("/a.png")


def test_values_never_change(tmp_path: Path) -> None:
    plate = Plate(picture=tmp_path)
    with pytest.raises(ValidationError, match="frozen"):
        plate.copies = 2  # type: ignore[misc]


def test_only_mappings_are_read(tmp_path: Path) -> None:
    path = tmp_path / "plate.yaml"
    with pytest.raises(ConfigError, match="no such file, perhaps"):
        read_yaml(path, hint=", perhaps")
    path.write_text("[1]")
    with pytest.raises(ConfigError, match="must be a mapping of fields, not list"):
        read_yaml(path)


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("a: 2001-99-99", "not readable as YAML: month must be in 1..12; put a text into quotes"),
        ("a: " + "[" * 3000, "not readable as YAML: nested too deeply"),
        ("a: [", "not readable as YAML: "),
    ],
)
def test_what_pyyaml_cannot_read_is_refused_whatever_it_raises(tmp_path: Path, text: str, says: str) -> None:
    path = tmp_path / "plate.yaml"
    path.write_text(text)
    with pytest.raises(ConfigError, match=says):
        read_yaml(path)


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("1: 2", "a key is 1; allowed: text, in quotes"),
        ("server: {on: 2}", r"a key is true or false \(on, off, yes, no\); allowed: text"),
        ("base: [{null: 2}]", "a key is None; allowed: text"),
    ],
)
def test_keys_are_text(tmp_path: Path, text: str, says: str) -> None:
    path = tmp_path / "plate.yaml"
    path.write_text(text)
    with pytest.raises(ConfigError, match=says):
        read_yaml(path)
    path.write_text("a: &a\n  again: *a\n  'on': 1")
    assert read_yaml(path)["a"]["on"] == 1, "an alias may lead back"


@pytest.mark.parametrize("name", ["../mara", "", "Mara", "a" * 65, "a b"])
def test_ids_are_no_paths(name: str) -> None:
    with pytest.raises(ValidationError):
        TypeAdapter(RegistryId).validate_python(name)
