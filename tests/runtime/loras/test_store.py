"""What a build publishes of its LoRAs, with their versions."""

from __future__ import annotations

import hashlib
import json
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from intaglio.contract.lora_registry import (
    LoraRegistry,
    ResolvedLora,
    load_registry,
)
from intaglio.errors import BuildError, ConfigError, LoraRefused
from intaglio.loras.sets import ServedLoras
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
    assert store.path(others[2]).is_file(), "a rollback can be undone"
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
    after = store.publish_registry(known, {"night": third}).loras["night"]
    assert after.versions == (first, second, third), "a file that changed"
    store.roll_back("night")
    put(store, tmp_path, b"3")
    assert store.publish_registry(known, {"night": third}).loras["night"].versions == (first, second)
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


def test_a_damaged_copy_of_equal_size_is_written_again(store: LoraStore, tmp_path: Path) -> None:
    digest = put(store, tmp_path, b"12")
    store.path(digest).write_bytes(b"21")
    assert put(store, tmp_path, b"12") == digest
    assert store.path(digest).read_bytes() == b"12"


def test_a_registry_of_an_earlier_version_is_read(store: LoraStore, tmp_path: Path) -> None:
    first = put(store, tmp_path, b"1")
    second = put(store, tmp_path, b"2")
    entry = {"kind": "style", "trigger_words": [], "weight": 1.0, "bounds": [0, 1.5]}
    written = {
        "schema_version": 1,
        "loras": {"night": {**entry, "versions": [first, second]}},
        "presets": {},
    }
    (store.folder / "registry.json").write_text(json.dumps(written))
    assert store.current().loras["night"].sha256 == second
    assert store.publish_registry(registry(tmp_path), {"night": first}).loras["night"].sha256 == second


def test_what_a_server_cannot_draw_with_is_taken_back_alone(store: LoraStore, tmp_path: Path) -> None:
    """A version that a build published meanwhile stays."""
    first = put(store, tmp_path, b"1")
    before = store.publish_registry(registry(tmp_path), {"night": first}).loras["night"]
    broken = put(store, tmp_path, b"2")
    store.publish_version("night", broken, keep=5)
    assert store.take_back("night", broken, before=before).loras["night"] == before
    broken = put(store, tmp_path, b"2")
    store.publish_version("night", broken, keep=5)
    newer = put(store, tmp_path, b"3")
    store.publish_registry(registry(tmp_path), {"night": newer})
    assert store.take_back("night", broken, before=before).loras["night"].versions == (first, newer)


def test_a_rollback_passes_over_versions_without_a_file(store: LoraStore, tmp_path: Path) -> None:
    known = registry(tmp_path)
    digests = []
    for data in (b"1", b"2", b"3"):
        digests.append(put(store, tmp_path, data))
        store.publish_registry(known, {"night": digests[-1]})
    store.path(digests[1]).unlink()
    assert store.roll_back("night").loras["night"].versions == (digests[0],)


def test_a_removed_lora_leaves_nothing(store: LoraStore, tmp_path: Path) -> None:
    known = registry(tmp_path)
    known = known.model_copy(update={"presets": {"evening": {"night": 1.0}}})
    digest = put(store, tmp_path, b"1")
    store.publish_registry(known, {"night": digest})
    assert store.remove("night")
    assert store.current() == ServedLoras()
    assert store.path(digest).is_file(), "a request on its way may still want it"
    store.publish_registry(LoraRegistry(), {})
    assert not store.path(digest).is_file()
    assert not store.remove("night")


def test_a_lora_whose_file_is_missing(store: LoraStore, tmp_path: Path) -> None:
    """It stays as it was published; a new one is left out with the presets that name it."""
    path = tmp_path / "loras.yaml"
    loras = {"night": ENTRY, "neon": {"file": "neon.safetensors", "kind": "style"}}
    presets = {"both": {"night": 1.0, "neon": 1.0}, "one": {"night": 1.0}}
    path.write_text(yaml.safe_dump({"loras": loras, "presets": presets}))
    known = load_registry(path)
    night = put(store, tmp_path, b"1")
    served = store.publish_registry(known, {"night": night})
    assert set(served.loras) == {"night"}
    assert set(served.presets) == {"one"}
    assert store.publish_registry(known, {}) == served


def test_a_damaged_list_is_refused_and_not_replaced(store: LoraStore, tmp_path: Path) -> None:
    """A build that replaced it would serve again what a rollback rejected."""
    known = registry(tmp_path)
    first, second = (put(store, tmp_path, data) for data in (b"1", b"2"))
    store.publish_registry(known, {"night": first})
    store.publish_version("night", put(store, tmp_path, b"2"), keep=5)
    store.roll_back("night")
    path = store.folder / "registry.json"
    path.write_text(path.read_text()[:-20])
    damaged = path.read_text()
    acts: list[Callable[[], Any]] = [
        lambda: store.publish_registry(known, {"night": second}),
        lambda: store.after_build(known, {"night": second}),
        lambda: store.remove("night"),
        lambda: store.write(ServedLoras()),
    ]
    for act in acts:
        with pytest.raises(
            ConfigError, match=r"registry\.json: damaged .*restore it from a copy, or remove it"
        ):
            act()
    assert path.read_text() == damaged
    assert store.path(first).is_file()


def test_without_any_whole_file_the_build_is_refused(store: LoraStore, tmp_path: Path) -> None:
    """Leaving the LoRA out would forget its versions and what was rejected."""
    known = registry(tmp_path)
    first = put(store, tmp_path, b"1")
    before = store.publish_registry(known, {"night": first})
    store.path(first).write_bytes(b"damaged")
    with pytest.raises(
        LoraRefused, match=r"its file is not available, and the copy that is served .* put the file back"
    ):
        store.publish_registry(known, {})
    assert store.current() == before
    put(store, tmp_path, b"1")
    assert store.publish_registry(known, {}) == before


class Publishing(RuleBasedStateMachine):
    """A LoRA that is trained, added, built, watched and rolled back in any order, beside the rule of
    docs/loras.md in a few lines.
    """

    def __init__(self) -> None:
        super().__init__()
        self._temporary = tempfile.TemporaryDirectory()
        self.folder = Path(self._temporary.name)
        self.store = LoraStore(self.folder / "loras")
        self.source = self.folder / "night.safetensors"
        self.added = self.file = self.write(0)
        self.last_built = self.current = ""
        self.rejected: set[str] = set()
        self.earlier: list[str] = []
        self.keep = 5

    def teardown(self) -> None:
        self._temporary.cleanup()

    def write(self, content: int) -> str:
        data = b"%d" % content
        self.source.write_bytes(data)
        return hashlib.sha256(data).hexdigest()

    def serve(self, digest: str) -> None:
        others = [one for one in (*self.earlier, self.current) if one not in ("", digest)]
        self.earlier = others[1 - self.keep :]
        self.current = digest

    @rule(content=st.integers(0, 4))
    def train(self, content: int) -> None:
        self.file = self.write(content)

    @rule()
    def add(self) -> None:
        self.added = self.file

    @rule()
    def build(self) -> None:
        known = registry(self.folder, sha256=self.added)
        refused = self.file not in (*self.rejected, self.current, self.added)
        digest, _ = self.store.put("night", self.source)
        if refused:
            with pytest.raises(LoraRefused, match="changed since it was added"):
                self.store.publish_registry(known, {"night": digest})
            return
        self.store.publish_registry(known, {"night": digest})
        if self.file not in (*self.rejected, self.last_built, self.current):
            self.serve(self.file)
        self.last_built = self.file

    @precondition(lambda self: self.current)
    @rule()
    def watch(self) -> None:
        digest, data = self.store.put("night", self.source)
        if self.file in self.rejected:
            with pytest.raises(LoraRefused, match="was rejected"):
                self.store.publish_version("night", digest, keep=3, data=data)
            return
        self.store.publish_version("night", digest, keep=3, data=data)
        self.keep = 3
        self.serve(digest)

    @precondition(lambda self: self.current)
    @rule()
    def rollback(self) -> None:
        if not self.earlier:
            with pytest.raises(ConfigError, match="no version before"):
                self.store.roll_back("night")
            return
        self.store.roll_back("night")
        self.rejected.add(self.current)
        self.current = self.earlier.pop()

    @precondition(lambda self: self.current)
    @rule()
    def ask_for_the_file(self) -> None:
        digest, data = self.store.put("night", self.source)
        self.store.serve_version("night", digest, data=data)
        self.rejected.discard(digest)
        self.serve(digest)

    @invariant()
    def agree(self) -> None:
        if not self.current:
            return
        served = self.store.current().loras["night"]
        assert served.sha256 == self.current
        assert set(served.rejected) == self.rejected
        assert self.current not in self.rejected
        assert all(self.store.is_whole(version) for version in served.versions)
        assert list(served.versions[:-1]) == self.earlier


TestPublishing = Publishing.TestCase
TestPublishing.settings = settings(max_examples=60, stateful_step_count=25, deadline=None)
