"""A user's LoRAs against a base: every case is added, checked and published to a build. What a deployment can
never apply is refused each time.
"""

from __future__ import annotations

import os
import shutil
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml
from safetensors.torch import load_file, save_file

from intaglio.builds.file_checks import file_digest
from intaglio.cli import main
from intaglio.contract.config import Deployment, load_deployment
from intaglio.contract.lora_registry import LoraEntry
from intaglio.contract.sources import Source
from intaglio.errors import ConfigError, LoraRefused
from intaglio.loras.files import layer_table, lora_file_from_bytes
from intaglio.loras.store import LORAS_FOLDER, LoraStore
from intaglio_export.weights.publication import publication_messages
from intaglio_export.weights.registry import (
    base_layers,
    check_entry,
    check_registry,
    described,
    lora_path,
    publish_registry,
    registry_of,
)

from ...checkpoint import ROOT, Checkpoint, write_locon
from ...hub import local_hub, without_hub
from ..conftest import write_config

CASES = ROOT / "tests/data/loras"
GOOD_CASES = (
    "kohya_mixed_alpha",
    "mixed_rank",
    "partial_alpha",
    "dora_out",
    "dora_in",
    "rp_suffix",
    "peft_adapter/adapter_model",
)


def entry(path: Path) -> LoraEntry:
    return LoraEntry(file=path, kind="style")


def registered(checkpoint: Checkpoint, folder: Path, path: Path, **values: Any) -> Deployment:
    """A deployment whose registry has the LoRA `path`."""
    loras = {"style": {"file": str(path), "kind": "style", **values}}
    (folder / "loras.yaml").write_text(yaml.safe_dump({"loras": loras}))
    config = write_config(
        folder / "a.yaml", checkpoint, fuse=None, loras=None, registry="loras.yaml", swap="all"
    )
    return load_deployment(config)


def test_facts_of_a_file(checkpoint: Checkpoint) -> None:
    table = base_layers((Source(folder=checkpoint.base),))
    path = checkpoint.lora("character")
    checked = described("character", entry(path), table=table, swap="all")
    found = checked.entry
    assert found.sha256 == file_digest(path).sha256
    assert (found.format, found.rank) == ("kohya LoRA", (4,))
    assert set(found.targets) == {"text_encoder", "text_encoder_2", "unet"}
    assert checked.warnings == ()
    assert check_entry("character", found, table=table, swap="all") == checked


def test_a_file_that_changed_since_it_was_added(checkpoint: Checkpoint, tmp_path: Path) -> None:
    table = base_layers((Source(folder=checkpoint.base),))
    path = tmp_path / "x.safetensors"
    path.write_bytes(checkpoint.lora("style").read_bytes())
    added = described("x", entry(path), table=table, swap="all").entry
    path.write_bytes(checkpoint.lora("character").read_bytes())
    with pytest.raises(LoraRefused, match="changed since it was added"):
        check_entry("x", added, table=table, swap="all")


def test_a_file_that_is_missing(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"lora x: .*no such file; train it"):
        lora_path("x", entry(tmp_path / "x.safetensors"))


def test_publishing_copies_and_checks_every_file(checkpoint: Checkpoint, tmp_path: Path) -> None:
    path = tmp_path / "style.safetensors"
    path.write_bytes(checkpoint.lora("style").read_bytes())
    deployment = registered(checkpoint, tmp_path, path)
    served = publish_registry(deployment, tmp_path / "build").served
    store = LoraStore(tmp_path / "build" / LORAS_FOLDER)
    assert store.current() == served
    assert store.path(served.loras["style"].sha256).read_bytes() == path.read_bytes()
    path.write_bytes(path.read_bytes()[:-10])
    with pytest.raises(LoraRefused, match="style"):
        publish_registry(deployment, tmp_path / "build")
    assert store.current() == served


@pytest.fixture
def deployment(checkpoint: Checkpoint, tmp_path: Path) -> Callable[[str], Path]:
    """The YAML of a deployment that swaps, with a registry of no LoRA."""

    def make(swap: str) -> Path:
        (tmp_path / "loras.yaml").write_text("loras: {}\n")
        return write_config(
            tmp_path / "plate.yaml", checkpoint, loras=None, fuse=None, swap=swap, registry="loras.yaml"
        )

    return make


def add(config: Path, path: Path, name: str = "x") -> int:
    return main(["loras", "add", str(path), "--config", str(config), "--id", name, "--kind", "style"])


@pytest.mark.parametrize("case", GOOD_CASES)
def test_each_case_is_added_checked_and_published(
    deployment: Callable[[str], Path], tmp_path: Path, case: str, capsys: pytest.CaptureFixture[str]
) -> None:
    config = deployment("all")
    assert add(config, CASES / f"{case}.safetensors") == 0
    assert main(["loras", "check", "--config", str(config)]) == 0
    assert "ok  x: " in capsys.readouterr().out
    found = load_deployment(config)
    check_registry(found, tmp_path / "build")
    served = publish_registry(found, tmp_path / "build").served
    listed = yaml.safe_load((tmp_path / "loras.yaml").read_text())["loras"]["x"]["sha256"]
    assert served.loras["x"].sha256 == listed
    table = base_layers(found.base)
    data = LoraStore(tmp_path / "build" / LORAS_FOLDER).path(listed).read_bytes()
    file = lora_file_from_bytes("x", data, table=table)
    scales = {layer.strength for layer in file.layers.values()}
    assert case != "peft_adapter/adapter_model" or scales == {4.0}


def test_the_bases_headers_say_the_same_as_the_network(checkpoint: Checkpoint, deployment: Any) -> None:
    config = deployment("all")
    table = base_layers(load_deployment(config).base)
    unet = load_file(next((checkpoint.base / "unet").glob("*.safetensors")))
    expected = layer_table({"unet": {name: tuple(values.shape) for name, values in unet.items()}})
    assert table["unet"] == expected["unet"]


def test_headers_without_the_level_of_the_text_model_say_the_same(
    checkpoint: Checkpoint, tmp_path: Path
) -> None:
    """As transformers 5.6 writes the encoder without a projection."""
    base = tmp_path / "base"
    shutil.copytree(checkpoint.base, base)
    path = base / "text_encoder/model.safetensors"
    save_file({name.removeprefix("text_model."): one for name, one in load_file(path).items()}, path)
    expected = base_layers((Source(folder=checkpoint.base),))
    assert base_layers((Source(folder=base),)) == expected


def test_layers_that_swap_leaves_out_are_refused_everywhere(
    checkpoint: Checkpoint, deployment: Any, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "locon.safetensors"
    write_locon(path, checkpoint)
    assert add(deployment("all"), path) == 0
    registry = (tmp_path / "loras.yaml").read_text()
    config = deployment("transformer")
    capsys.readouterr()
    assert add(config, path) != 0
    reason = "layers that swap: transformer leaves out, such as unet.down_blocks"
    assert reason in capsys.readouterr().err
    (tmp_path / "loras.yaml").write_text(registry)
    assert main(["loras", "check", "--config", str(config)]) == 1
    assert reason in capsys.readouterr().out
    with pytest.raises(LoraRefused, match="set swap: all in the configuration"):
        check_registry(load_deployment(config), tmp_path / "build")
    with pytest.raises(LoraRefused, match="set swap: all in the configuration"):
        publish_registry(load_deployment(config), tmp_path / "build")
    assert not (tmp_path / "build" / LORAS_FOLDER / "registry.json").exists()


def test_what_a_lora_says_wrongly_of_itself_is_shown(
    checkpoint: Checkpoint, deployment: Any, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "said.safetensors"
    save_file(load_file(checkpoint.lora("style")), path, metadata={"ss_base_model_version": "sd_v1"})
    config = deployment("all")
    said = "its metadata says that it is a Stable Diffusion 1.5 LoRA"
    assert add(config, path) == 0
    assert said in capsys.readouterr().err
    assert main(["loras", "check", "--config", str(config)]) == 0
    assert f"warning  x: {said}" in capsys.readouterr().out


@pytest.mark.parametrize("data", [b"", b"{}", b"\x08\0\0\0\0\0\0\0[1,2,3] ", b"\x40" + b"\0" * 7 + b"{" * 64])
def test_a_malformed_file_is_refused_in_one_line(
    deployment: Any, tmp_path: Path, data: bytes, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "bad.safetensors").write_bytes(data)
    config = deployment("all")
    capsys.readouterr()
    assert add(config, tmp_path / "bad.safetensors") != 0
    (line,) = capsys.readouterr().err.strip().splitlines()
    assert "lora x: " in line
    assert "Traceback" not in line


def test_a_changed_configuration_beside_the_file_is_noticed(
    deployment: Any, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for path in (CASES / "peft_adapter").iterdir():
        (tmp_path / path.name).write_bytes(path.read_bytes())
    config = deployment("all")
    assert add(config, tmp_path / "adapter_model.safetensors") == 0
    beside = tmp_path / "adapter_config.json"
    beside.write_text(beside.read_text().replace('"lora_alpha": 16', '"lora_alpha": 8'))
    assert main(["loras", "check", "--config", str(config)]) == 1
    assert "its file changed since it was added" in capsys.readouterr().out


def test_the_stored_copy_needs_no_other_file(deployment: Any, tmp_path: Path) -> None:
    """What `watch` publishes with too."""
    store = LoraStore(tmp_path / "store")
    digest, data = store.put("x", CASES / "peft_adapter/adapter_model.safetensors")
    assert store.path(digest).read_bytes() == data
    table = base_layers(load_deployment(deployment("all")).base)
    layers = lora_file_from_bytes("x", data, table=table).layers.values()
    assert {layer.strength for layer in layers} == {4.0}


def test_a_file_that_was_overwritten_is_refused_before_any_work(
    checkpoint: Checkpoint, tmp_path: Path
) -> None:
    path = tmp_path / "style.safetensors"
    path.write_bytes(checkpoint.lora("style").read_bytes())
    deployment = registered(checkpoint, tmp_path, path, sha256=file_digest(path).sha256)
    served = publish_registry(deployment, tmp_path / "build").served
    path.write_bytes(checkpoint.lora("character").read_bytes())
    for refuse in (check_registry, publish_registry):
        with pytest.raises(LoraRefused, match="changed since it was added; run intaglio loras add style"):
            refuse(deployment, tmp_path / "build")
    assert LoraStore(tmp_path / "build" / LORAS_FOLDER).current() == served
    check_registry(registered(checkpoint, tmp_path, path), tmp_path / "build")


def test_a_missing_file_is_no_reason_to_refuse_the_others(checkpoint: Checkpoint, tmp_path: Path) -> None:
    deployment = registered(checkpoint, tmp_path, tmp_path / "trained/neon/neon.safetensors")
    check_registry(deployment, tmp_path / "build")
    publication = publish_registry(deployment, tmp_path / "build")
    assert publication.served.loras == {}
    assert "neon.safetensors: no such file; train it" in publication.absent["style"]


def hub_registered(checkpoint: Checkpoint, folder: Path) -> Deployment:
    """A deployment whose registry has the LoRA somebody/loras/style.safetensors."""
    loras = {"style": {"hub": "somebody/loras/style.safetensors", "kind": "style"}}
    (folder / "loras.yaml").write_text(yaml.safe_dump({"loras": loras}))
    config = write_config(
        folder / "a.yaml", checkpoint, fuse=None, loras=None, registry="loras.yaml", swap="all"
    )
    return load_deployment(config)


def test_a_lora_of_the_hub_out_of_reach_stays_as_it_was_published(
    checkpoint: Checkpoint, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    deployment = hub_registered(checkpoint, tmp_path)
    build = tmp_path / "build"
    without_hub(tmp_path / "no cache", monkeypatch)
    for refuse in (check_registry, publish_registry):
        with pytest.raises(
            ConfigError, match=r"lora style: hub:somebody/loras/style\.safetensors: .*hub in reach"
        ):
            refuse(deployment, build)
    with local_hub(tmp_path / "cache", monkeypatch) as hub:
        hub.repositories["somebody/loras"] = {"style.safetensors": checkpoint.lora("style").read_bytes()}
        first = publish_registry(deployment, build)
        assert not first.absent
        hub.repositories["somebody/loras"] = {"another.safetensors": b""}
        assert "has no such file" in publish_registry(deployment, build).absent["style"]
    without_hub(tmp_path / "no cache", monkeypatch)
    check_registry(deployment, build)
    again = publish_registry(deployment, build)
    assert again.served == first.served
    (message,) = publication_messages(registry_of(deployment), again, config="style.yaml")
    version = first.served.loras["style"].sha256[:12]
    assert message.startswith(f"lora style stays as it was published ({version}): hub:somebody/loras/style")


def test_make_clean_leaves_the_demo_its_loras() -> None:
    """Every file of the miniature's registry is committed, or lies under trained/, which it keeps."""
    registry = yaml.safe_load((ROOT / "configs/loras.yaml").read_text())
    tracked = subprocess.run(["git", "ls-files"], cwd=ROOT, capture_output=True, text=True, check=True)
    committed = set(tracked.stdout.splitlines())
    assert "mara" in registry["loras"], "the demo's own LoRA"
    for lora, values in registry["loras"].items():
        path = os.path.normpath(Path("configs") / values["file"])
        if lora == "mara" or not path.startswith("trained/"):
            assert path in committed, lora
