"""What a build says of LoRAs that are served otherwise than the registry names them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from intaglio.contract.lora_registry import LoraRegistry
from intaglio.loras.sets import ServedLora, ServedLoras
from intaglio_export.weights.publication import publication_messages
from intaglio_export.weights.registry import Publication

FILE, OTHER = "a" * 64, "b" * 64


def messages(tmp_path: Path, *, present: bool = True, **published: Any) -> tuple[str, ...]:
    path = tmp_path / "night.safetensors"
    if present:
        path.touch()
    values = {"loras": {"night": {"file": path, "kind": "style"}}, "presets": {"evening": {"night": 1.0}}}
    served = ServedLoras()
    if published:
        night = ServedLora(kind="style", bounds=(0, 1), **published)
        served = ServedLoras(loras={"night": night}, presets={"evening": {"night": 1.0}})
    absent = {} if present else {"night": f"{path}: no such file; train it"}
    registry = LoraRegistry.model_validate(values)
    return publication_messages(registry, Publication(served, absent), config="studio.yaml")


def test_nothing_is_said_of_what_is_served_as_named(tmp_path: Path) -> None:
    assert messages(tmp_path, versions=(OTHER, FILE), built=FILE) == ()


def test_another_version_is_named_with_the_command_that_changes_it(tmp_path: Path) -> None:
    (rejected,) = messages(tmp_path, versions=(OTHER,), built=FILE, rejected=(FILE,))
    file, other = FILE[:12], OTHER[:12]
    assert rejected == (
        f"lora night: the registry's file is {file}, but {other} is served, because {file} was rejected; "
        f"to serve the file: intaglio loras serve night --version {file} --config studio.yaml"
    )
    (newer,) = messages(tmp_path, versions=(FILE, OTHER), built=FILE)
    assert "is served, which was published after it; to serve the file" in newer
    assert f"--version {file}" in newer
    (gone,) = messages(tmp_path, versions=(OTHER,), built=FILE, rejected=(FILE, "c" * 64))
    assert gone.endswith("intaglio loras serve night --config studio.yaml"), "its file is not kept"


def test_a_missing_file_is_named(tmp_path: Path) -> None:
    lora, preset = messages(tmp_path, present=False)
    assert lora.startswith("lora night is not served: ")
    assert "night.safetensors: no such file; train it" in lora
    assert preset == "preset evening is not served, because a LoRA of it is not"
    (kept,) = messages(tmp_path, present=False, versions=(FILE,), built=FILE)
    assert kept.startswith(f"lora night stays as it was published ({FILE[:12]}): ")
