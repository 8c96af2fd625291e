"""Repositories of the hub: a complete one comes from the cache; of others the rest is fetched, or one line
says why not.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from diffusers import ControlNetModel

from intaglio.contract.sources import Source
from intaglio.errors import BuildError, ConfigError
from intaglio_export.weights.hub import AbsentError, NotFetchedError, hub_file
from intaglio_export.weights.load import load_network
from intaglio_export.weights.repository_files import COMPONENTS
from intaglio_export.weights.sources import find_base, find_model

from ...hub import Hub, local_hub, without_hub
from ...tiny import make_modules

MINIATURE = Path(__file__).parents[3] / "miniature/model"
NAME = "somebody/miniature"
SOURCE = Source(hub=NAME)
UNET = "unet/diffusion_pytorch_model.safetensors"


def files_of(folder: Path) -> dict[str, bytes]:
    return {
        path.relative_to(folder).as_posix(): path.read_bytes() for path in folder.rglob("*") if path.is_file()
    }


@pytest.fixture(scope="module")
def whole() -> dict[str, bytes]:
    """The miniature's files, and some that diffusers does not load."""
    more = {"README.md": b"# Miniature", "lora.safetensors": b"", "openvino/unet.safetensors": b""}
    return files_of(MINIATURE) | more


@pytest.fixture
def hub(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Hub]:
    with local_hub(tmp_path / "cache", monkeypatch) as hub:
        yield hub


def fp16_only(files: dict[str, bytes]) -> dict[str, bytes]:
    return {
        name.replace(".safetensors", ".fp16.safetensors")
        if name.endswith("model.safetensors")
        else name: data
        for name, data in files.items()
    }


def test_only_what_is_loaded_is_fetched_and_only_once(hub: Hub, whole: dict[str, bytes]) -> None:
    hub.repositories[NAME] = whole
    base = find_base([SOURCE])
    assert UNET in hub.fetched
    assert not {"README.md", "lora.safetensors", "openvino/unet.safetensors"} & set(hub.fetched)
    hub.repositories.clear()
    hub.fetched.clear()
    assert find_base([SOURCE]).root == base.root
    assert not hub.fetched


def test_a_cached_repository_needs_no_hub(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, whole: dict[str, bytes]
) -> None:
    hub = without_hub(tmp_path, monkeypatch)
    snapshot = hub.keep(NAME, whole)
    assert find_base([SOURCE]).root == snapshot


@pytest.mark.parametrize("lost", [UNET, "vae/config.json", "scheduler/scheduler_config.json"])
def test_an_interrupted_download_continues(hub: Hub, whole: dict[str, bytes], lost: str) -> None:
    hub.repositories[NAME] = whole
    hub.keep(NAME, {name: data for name, data in whole.items() if name != lost})
    base = find_base([SOURCE])
    assert hub.fetched == [lost]
    assert (base.root / lost).read_bytes() == whole[lost]


def test_an_interrupted_download_without_a_hub_is_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, whole: dict[str, bytes]
) -> None:
    hub = without_hub(tmp_path, monkeypatch)
    hub.keep(NAME, {name: data for name, data in whole.items() if name != UNET})
    with pytest.raises(
        BuildError, match=rf"hub:{NAME}: only a part of it is in the cache \(unet: no .safetensors"
    ):
        find_base([SOURCE])


def test_an_fp16_only_repository_loads_as_the_variant(hub: Hub, whole: dict[str, bytes]) -> None:
    hub.repositories[NAME] = fp16_only(whole)
    base = find_base([SOURCE])
    for component in COMPONENTS:
        assert load_network(component, base.weights(component), base=base)
    assert UNET not in hub.fetched


def test_a_missing_vae_is_no_matter_where_another_is_named(hub: Hub, whole: dict[str, bytes]) -> None:
    index = json.loads(whole["model_index.json"]) | {"vae": [None, None]}
    hub.repositories[NAME] = {name: data for name, data in whole.items() if not name.startswith("vae/")}
    hub.repositories[NAME]["model_index.json"] = json.dumps(index).encode()
    with pytest.raises(BuildError, match=f"hub:{NAME}: vae: no .safetensors weights"):
        find_base([SOURCE])
    assert find_base([SOURCE], replaced=("vae",))


def test_sharded_weights_load(hub: Hub, whole: dict[str, bytes], tmp_path: Path) -> None:
    torch.manual_seed(0)
    network = make_modules()["controlnet.pose"]
    network.save_pretrained(tmp_path / "pose", max_shard_size="20KB")
    hub.repositories["somebody/pose"] = files_of(tmp_path / "pose")
    assert len([name for name in hub.repositories["somebody/pose"] if "-of-" in name]) > 1
    weights = find_model(Source(hub="somebody/pose"), component="controlnet")
    loaded = load_network("controlnet", weights).state_dict()
    assert all(torch.equal(loaded[name], values) for name, values in network.state_dict().items())


def controlnet_files(folder: Path, **tensors: Any) -> dict[str, bytes]:
    network: Any = make_modules()["controlnet.pose"]
    for name, values in tensors.items():
        network.register_parameter(name, torch.nn.Parameter(values))
    network.save_pretrained(folder)
    return files_of(folder)


def test_a_controlnet_of_another_name_is_refused_before_it_is_fetched(hub: Hub, tmp_path: Path) -> None:
    found = controlnet_files(tmp_path / "pose")
    found["OpenPoseXL2.safetensors"] = found.pop("diffusion_pytorch_model.safetensors")
    hub.repositories["somebody/pose"] = found
    with pytest.raises(BuildError, match=r"diffusers loads .*, but there is OpenPoseXL2.safetensors; rename"):
        find_model(Source(hub="somebody/pose"), component="controlnet")
    assert not hub.fetched


def test_a_union_is_found_by_its_tensors(hub: Hub, tmp_path: Path) -> None:
    """Its config.json may be that of a plain ControlNet."""
    hub.repositories["somebody/union"] = controlnet_files(tmp_path / "u", task_embedding=torch.zeros(6, 8))
    with pytest.raises(ConfigError, match=r"ControlNet-Union \(it has task_embedding\)"):
        find_model(Source(hub="somebody/union"), component="controlnet")


def test_weights_without_a_place_do_not_load(tmp_path: Path) -> None:
    controlnet_files(tmp_path / "pose", foreign=torch.zeros(2))
    weights = find_model(Source(folder=tmp_path / "pose"), component="controlnet")
    with pytest.raises(BuildError, match="the configuration has no place for foreign"):
        load_network("controlnet", weights)
    assert ControlNetModel.from_pretrained(tmp_path / "pose"), "diffusers passes over it with a warning"


def test_what_the_hub_lacks_is_named(hub: Hub) -> None:
    with pytest.raises(
        ConfigError, match="no base is available: hub:no/body: the hub has no such repository"
    ):
        find_base([Source(hub="no/body")])


def to_fetch(candidates: list[Source]) -> NotFetchedError:
    with pytest.raises(NotFetchedError) as found:
        find_base(candidates, fetch=False)
    return found.value


def test_the_size_of_a_download_is_known_before(hub: Hub, whole: dict[str, bytes], tmp_path: Path) -> None:
    hub.repositories[NAME] = whole
    found = to_fetch([Source(hub="no/body"), SOURCE])
    assert found.source == f"hub:{NAME}"
    assert found.passed_over == (
        "hub:no/body: the hub has no such repository, or HF_TOKEN is needed to read it",
    )
    unused = ("README.md", "lora.safetensors", "openvino/unet.safetensors", "tokenizer/LICENSE")
    assert found.size == sum(len(data) for name, data in whole.items() if name not in unused)
    hub.keep(NAME, {name: data for name, data in whole.items() if name != UNET})
    assert to_fetch([SOURCE]).size == len(whole[UNET])
    assert not hub.fetched


def test_a_repository_without_a_configuration_is_refused_before_it_is_fetched(
    hub: Hub, whole: dict[str, bytes]
) -> None:
    hub.repositories[NAME] = {name: data for name, data in whole.items() if name != "tokenizer/merges.txt"}
    for fetch in (False, True):
        with pytest.raises(BuildError, match=rf"hub:{NAME}: tokenizer/merges.txt is missing"):
            find_base([SOURCE], fetch=fetch)
    assert not hub.fetched


def test_a_gated_repository_is_passed_over_before_it_is_fetched(hub: Hub, whole: dict[str, bytes]) -> None:
    """The hub describes it to everybody."""
    hub.repositories |= {"some/gated": whole, NAME: whole}
    hub.gated.add("some/gated")
    candidates = [Source(hub="some/gated"), SOURCE]
    assert "it is gated" in to_fetch(candidates).passed_over[0]
    assert "it is gated" in find_base(candidates).passed_over[0]


def test_one_file_comes_from_the_hub_or_the_cache(
    hub: Hub, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    hub.repositories["some/loras"] = {"a.safetensors": b"data"}
    with pytest.raises(NotFetchedError) as absent:
        hub_file("some/loras", "a.safetensors", fetch=False)
    assert absent.value.size == 4
    for fetch in (False, True):
        with pytest.raises(AbsentError, match="the repository has no such file"):
            hub_file("some/loras", "b.safetensors", fetch=fetch)
    path = hub_file("some/loras", "a.safetensors")
    assert path.read_bytes() == b"data"
    assert hub_file("some/loras", "a.safetensors", fetch=False) == path
    hub.repositories["some/loras"] = {"a.safetensors": b"newer"}
    with pytest.raises(NotFetchedError):
        hub_file("some/loras", "a.safetensors", fetch=False)
    without_hub(hub.cache, monkeypatch)
    for fetch in (False, True):
        assert hub_file("some/loras", "a.safetensors", fetch=fetch) == path
        with pytest.raises(AbsentError, match="cannot be reached"):
            hub_file("some/loras", "b.safetensors", fetch=fetch)
