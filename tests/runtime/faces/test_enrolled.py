"""The folder of enrolled characters: private, atomic, and empty after `forget`."""

from __future__ import annotations

import json
import threading
from pathlib import Path
from typing import Any

import pytest

from intaglio.errors import ConfigError, InvalidRequest
from intaglio.faces.enrolled import EnrolledCharacter, EnrolledFolder, EnrolledReference

KEY = "a" * 64


def character(name: str, *numbers: float, **values: Any) -> EnrolledCharacter:
    reference = EnrolledReference(name="a.jpg", sha256="b" * 64, face=90, embedding=numbers or (0.6, 0.8))
    return EnrolledCharacter(**{"name": name, "key": KEY, "references": (reference,), **values})


def written(folder: EnrolledFolder, one: EnrolledCharacter) -> Path:
    with folder.locked():
        return folder.write(one)


def test_only_the_owner_may_read_what_is_written(tmp_path: Path) -> None:
    folder = EnrolledFolder(tmp_path / "deeper/characters")
    path = written(folder, character("ann"))
    assert path.stat().st_mode & 0o777 == 0o600
    assert folder.path.stat().st_mode & 0o777 == 0o700
    assert (folder.path / ".lock").stat().st_mode & 0o777 == 0o600
    assert folder.names() == ["ann"]
    assert folder.read("ann", key=KEY).embeddings[0] == pytest.approx([0.6, 0.8])
    path.chmod(0o640)
    with pytest.raises(ConfigError, match=r"others may read it \(mode 0640\); run: chmod 600"):
        folder.read("ann")
    folder.path.chmod(0o750)
    with pytest.raises(ConfigError, match=r"others may look into it \(mode 0750\); run: chmod 700"):
        written(folder, character("bob"))


def test_forgetting_leaves_nothing(tmp_path: Path) -> None:
    folder = EnrolledFolder(tmp_path / "characters")
    ann = written(folder, character("ann"))
    written(folder, character("anna"))
    half = ann.with_name("ann.json.intaglio-x7x7x7x7.tmp")
    half.write_text("half a file of a process that was killed")
    assert folder.forget("ann") == [ann, half]
    assert folder.names() == ["anna"]
    with pytest.raises(InvalidRequest, match="character: 'ann' is not enrolled"):
        folder.read("ann")
    assert folder.forget("ann") == []
    folder.forget("anna")
    assert not folder.path.exists()
    assert folder.forget("anna") == []


def test_who_waited_for_a_folder_that_was_forgotten_makes_a_private_one(tmp_path: Path) -> None:
    folder = EnrolledFolder(tmp_path / "characters")
    written(folder, character("ann"))
    with folder.locked():
        waiting = threading.Thread(target=written, args=(folder, character("bob")))
        waiting.start()
        folder.path.rename(tmp_path / "gone")
    waiting.join(30)
    assert folder.names() == ["bob"]
    assert folder.path.stat().st_mode & 0o777 == 0o700


DAMAGED: dict[str, Any] = {
    "no JSON": b"\x00",
    "no number": {"references": [{"name": "a", "sha256": "b" * 64, "face": 9, "embedding": ["0.123x"]}]},
    "not finite": {"references": [{"name": "a", "sha256": "b" * 64, "face": 9, "embedding": [1e999]}]},
    "an unknown key": {"colour": 1},
    "of another": {"name": "bob"},
}


@pytest.mark.parametrize("name", DAMAGED)
def test_a_damaged_file_is_named_and_its_numbers_are_not(tmp_path: Path, name: str) -> None:
    folder = EnrolledFolder(tmp_path / "characters")
    path = written(folder, character("ann"))
    change = DAMAGED[name]
    data = change if isinstance(change, bytes) else json.dumps(json.loads(path.read_text()) | change).encode()
    path.write_bytes(data)
    with pytest.raises(ConfigError, match=r"ann\.json: damaged.*; enroll ann again") as refused:
        folder.read("ann")
    assert "0.123" not in str(refused.value)
    assert refused.value.__cause__ is None


def test_other_networks_are_named(tmp_path: Path) -> None:
    folder = EnrolledFolder(tmp_path / "characters")
    written(folder, character("ann"))
    with pytest.raises(
        ConfigError, match="was enrolled with other networks; enroll ann again with --replace"
    ):
        folder.read("ann", key="c" * 64)


@pytest.mark.parametrize("name", ["../ann", "Ann", "", "ann.json", "ann\n", "a" * 65])
def test_a_name_is_never_a_path(tmp_path: Path, name: str) -> None:
    for ask in (EnrolledFolder(tmp_path).read, EnrolledFolder(tmp_path).forget):
        with pytest.raises(InvalidRequest, match=r"^character: .*; allowed: at most 64 lower-case letters"):
            ask(name)


def test_no_text_shows_an_embedding() -> None:
    assert "0.6" not in repr(character("ann")) + str(character("ann"))
