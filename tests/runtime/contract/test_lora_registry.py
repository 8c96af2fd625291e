"""The registry, what is published of it, presets and characters, trigger words, and who is next in the queue."""

from __future__ import annotations

import threading
from pathlib import Path
from typing import Any

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

from intaglio.contract.config import load_deployment
from intaglio.contract.lora_registry import (
    LoraEntry,
    LoraRegistry,
    ResolvedLora,
    load_registry,
    write_registry,
)
from intaglio.errors import BuildError, ConfigError, LoraRefused
from intaglio.loras.sets import ServedLora, ServedLoras, set_digest, set_text
from intaglio.loras.store import LoraStore
from intaglio.request.loras import absent_trigger_words
from intaglio.triton_models.turnstile import Turnstile, Waiting, next_index
from intaglio_client.characters import load_character, load_characters

ROOT = Path(__file__).parents[3]
ENTRY: dict[str, Any] = {"file": "night.safetensors", "kind": "style"}


def registry(tmp_path: Path, **changes: Any) -> LoraRegistry:
    path = tmp_path / "loras.yaml"
    path.write_text(yaml.safe_dump({"loras": {"night": ENTRY | changes}}))
    return load_registry(path)


# --- configs/loras.yaml ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("change", "problem"),
    [
        ({"colour": 1}, "loras.night.colour: Extra inputs"),
        ({"kind": "weather"}, "loras.night.kind"),
        ({"file": "night.pt"}, "must be .safetensors"),
        ({"hub": "a/b/c.safetensors"}, "exactly one of file, hub"),
        ({"file": None}, "exactly one of file, hub"),
        ({"file": None, "hub": "../etc/passwd"}, "loras.night.hub"),
        ({"weight": 2.0}, "weight 2 is outside bounds 0 to 1.5"),
        ({"weight": float("nan")}, "loras.night.weight"),
        ({"bounds": [1, 9]}, "loras.night.bounds"),
        ({"trigger_words": [""]}, "trigger_words"),
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


def test_a_deployment_has_the_registrys_loras(tmp_path: Path) -> None:
    registry(tmp_path, weight=0.5)
    base: dict[str, Any] = {
        "base": [{"folder": "model"}],
        "profiles": {"sizes": [[64, 64]]},
        "registry": "loras.yaml",
    }

    def load(**changes: Any) -> Any:
        (tmp_path / "x.yaml").write_text(yaml.safe_dump(base | changes))
        return load_deployment(tmp_path / "x.yaml")

    assert load(fuse={"night": None}).fused == {"night": 0.5}
    swapping = load(swap="transformer").digest
    fused = load(fuse={"night": 0.5}).digest
    registry(tmp_path, weight=0.6)
    assert load(swap="transformer").digest == swapping, "LoRAs come and go while it is served"
    assert load(fuse={"night": 0.5}).digest != fused
    assert load(swap="all").digest != swapping
    for changes, problem in (
        ({"swap": "transformer", "fuse": {"night": None}}, "use one of them"),
        ({"swap": "transformer", "registry": None}, "swap serves the LoRAs of a registry"),
        ({"swap": "some"}, "swap"),
        ({"loras": {"night": {"path": "x.safetensors"}}}, "loras.yaml has a LoRA of that id too"),
        ({"registry": "absent.yaml"}, "no such file"),
    ):
        with pytest.raises(ConfigError, match=problem):
            load(**changes)


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


# --- what is published -------------------------------------------------------------------------------------------------


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


def test_a_sets_digest_is_its_content() -> None:
    a, b = (
        ResolvedLora(id="a", sha256="1" * 64, weight=1.0),
        ResolvedLora(id="b", sha256="2" * 64, weight=0.5),
    )
    same = a.model_copy(update={"id": "c"})
    assert set_digest((a, b)) == set_digest((b, same))
    assert (
        len(
            {set_digest(loras) for loras in ((), (a,), (b,), (a, b), (a.model_copy(update={"weight": 0.9}),))}
        )
        == 5
    )
    assert (set_text((a, b)), set_text(())) == ("a@1 + b@0.5", "no LoRA")


@pytest.mark.parametrize(
    ("prompt", "absent"),
    [
        ("a fox", ("Mara", "in moonlight  style")),
        ("MARA runs", ("in moonlight  style",)),
        ("maraschino", ("Mara", "in moonlight  style")),
        ("(mara:1.2), in  Moonlight style", ()),
    ],
)
def test_trigger_words_that_a_prompt_lacks(prompt: str, absent: tuple[str, ...]) -> None:
    words = {"a": ("Mara",), "b": ("Mara", "in moonlight  style")}
    loras = {
        name: ServedLora(kind="style", trigger_words=triggers, bounds=(0, 1), versions=("0" * 64,))
        for name, triggers in words.items()
    }
    chosen = tuple(ResolvedLora(id=name, sha256="0" * 64, weight=1.0) for name in words)
    assert absent_trigger_words(prompt, chosen, ServedLoras(loras=loras)) == absent


# --- the queue ---------------------------------------------------------------------------------------------------------


@given(keys=st.lists(st.sampled_from("abc"), min_size=1, max_size=40), overtakes=st.integers(0, 5))
def test_nobody_is_overtaken_too_often_and_groups_keep_their_order(keys: list[str], overtakes: int) -> None:
    queue: Turnstile[int] = Turnstile(overtakes=overtakes, capacity=0)
    for number, key in enumerate(keys):
        assert queue.put(number, key)
    resident, served = "a", []
    while len(served) < len(keys):
        taken = queue.take(resident)
        assert taken is not None
        assert taken.overtaken <= overtakes
        resident = taken.key
        served.append(taken.job)
    assert sorted(served) == list(range(len(keys)))
    for key in "abc":
        mine = [job for job in served if keys[job] == key]
        assert mine == sorted(mine)
    for place, job in enumerate(served):
        assert place <= job + overtakes


def test_the_resident_set_goes_first() -> None:
    waiting = [Waiting(number, key) for number, key in enumerate("bab")]
    assert next_index(waiting, "a", overtakes=1) == 1
    assert next_index(waiting, "c", overtakes=1) == 0
    assert next_index(waiting, "a", overtakes=0) == 0


def test_full_and_closed_queues() -> None:
    queue: Turnstile[int] = Turnstile(overtakes=8, capacity=2)
    assert [queue.put(number, "a") for number in range(3)] == [True, True, False]
    queue.close()
    assert not queue.put(3, "a")
    served = [taken.job for _ in range(2) if (taken := queue.take("a"))]
    assert served == [0, 1]
    assert queue.take("a") is None


def test_who_takes_waits_for_who_puts() -> None:
    queue: Turnstile[int] = Turnstile(overtakes=8, capacity=0)
    timer = threading.Timer(0.05, queue.put, (7, "a"))
    timer.start()
    taken = queue.take("")
    assert taken is not None
    assert taken.job == 7
