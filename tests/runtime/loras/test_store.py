"""What a build publishes of its LoRAs, with their versions."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import yaml

from intaglio.contract.lora_registry import (
    LoraRegistry,
    ResolvedLora,
    load_registry,
)
from intaglio.errors import BuildError, ConfigError, LoraRefused
from intaglio.loras.store import LoraStore

ENTRY: dict[str, Any] = {"file": "night.safetensors", "kind": "style"}


def registry(tmp_path: Path, **changes: Any) -> LoraRegistry:
    path = tmp_path / "loras.yaml"
    path.write_text(yaml.safe_dump({"loras": {"night": ENTRY | changes}}))
    return load_registry(path)


def put(store: LoraStore, tmp_path: Path, data: bytes) -> str:
    (tmp_path / "source.safetensors").write_bytes(data)
    return store.put("night", tmp_path / "source.safetensors")[0]


@pytest.fixture
def store(tmp_path: Path) -> LoraStore:
    return LoraStore(tmp_path / "loras")


def test_versions_are_kept_and_taken_back(store: LoraStore, tmp_path: Path) -> None:
    known = registry(tmp_path)
    first = put(store, tmp_path, b"1")
    store.publish_registry(known, {"night": first})
    others = []
    for data in (b"2", b"3", b"4"):
        others.append(put(store, tmp_path, data))
        store.publish_version("night", others[-1], keep=3)
    assert store.current().loras["night"].versions == tuple(others)
    assert store.path(first).is_file(), "a request on its way may still want it"
    assert store.roll_back("night").loras["night"].sha256 == others[1]
    assert not store.path(first).is_file()
    assert LoraStore(store.folder).current() == store.current()
    store.roll_back("night")
    with pytest.raises(ConfigError, match="no version before the current one"):
        store.roll_back("night")
    with pytest.raises(ConfigError, match="lora day: not served; served are night"):
        store.roll_back("day")


def test_nothing_is_published_whose_file_is_gone(store: LoraStore, tmp_path: Path) -> None:
    known = registry(tmp_path)
    first = put(store, tmp_path, b"1")
    store.publish_registry(known, {"night": first})
    second = put(store, tmp_path, b"2")
    store.write(store.current())  # another publisher tidies up
    with pytest.raises(BuildError, match=f"lora night: {second}.safetensors went away"):
        store.publish_version("night", second, keep=5)
    with pytest.raises(BuildError, match="went away"):
        store.publish_registry(known, {"night": second})
    assert store.current().loras["night"].versions == (first,)
    assert store.publish_version("night", second, keep=5, data=b"2").loras["night"].sha256 == second
    assert store.path(second).read_bytes() == b"2"


def test_a_build_does_not_undo_what_watch_did(store: LoraStore, tmp_path: Path) -> None:
    known = registry(tmp_path)
    first = put(store, tmp_path, b"1")
    store.publish_registry(known, {"night": first})
    second = put(store, tmp_path, b"2")
    store.publish_version("night", second, keep=5)
    assert store.publish_registry(known, {"night": first}).loras["night"].versions == (first, second)
    third = put(store, tmp_path, b"3")
    assert store.publish_registry(known, {"night": third}).loras["night"].versions == (
        first,
        second,
        third,
    ), "a file that changed"
    assert not store.publish_registry(LoraRegistry(), {}).loras


def test_a_reader_sees_what_another_process_published(store: LoraStore, tmp_path: Path) -> None:
    reader = LoraStore(store.folder)
    with pytest.raises(ConfigError, match=r"registry.json: No such file.*intaglio build writes it"):
        reader.current()
    store.publish_registry(registry(tmp_path), {"night": put(store, tmp_path, b"1")})
    assert set(reader.current().loras) == {"night"}
    (store.folder / "registry.json").write_text("{")
    with pytest.raises(ConfigError, match="damaged"):
        reader.current()


def test_bytes_are_those_that_were_published(store: LoraStore, tmp_path: Path) -> None:
    lora = ResolvedLora(id="night", sha256=put(store, tmp_path, b"1"), weight=1.0)
    assert store.load(lora) == b"1"
    store.path(lora.sha256).write_bytes(b"2")
    with pytest.raises(LoraRefused, match="changed after it was published"):
        store.load(lora)
    store.path(lora.sha256).unlink()
    with pytest.raises(LoraRefused, match="No such file"):
        store.load(lora)
