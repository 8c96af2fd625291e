"""Styles and scenes apply LoRAs that a request could apply."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import yaml

from intaglio.contract.config import Deployment, load_deployment
from intaglio.contract.presets import Presets
from intaglio.errors import ConfigError
from intaglio_export.deployment.preset_loras import check_preset_loras

LORAS = {"night": {"file": "night.safetensors", "kind": "style", "bounds": [0.0, 1.0]}}
SWAPPING = {"registry": "loras.yaml", "swap": "all"}


def deployment(folder: Path, **keys: Any) -> Deployment:
    registry = {"loras": LORAS, "presets": {"evening": {"night": 0.5}}}
    (folder / "loras.yaml").write_text(yaml.safe_dump(registry))
    values = {"base": {"folder": "x"}, "profiles": {"sizes": [[64, 64]]}, "presets": "presets.yaml", **keys}
    (folder / "presets.yaml").write_text("{}")
    (folder / "a.yaml").write_text(yaml.safe_dump(values))
    return load_deployment(folder / "a.yaml")


def presets(text: str) -> Presets:
    return Presets.model_validate({"styles": {"a": {"prompt": text}, "b": {"negative_prompt": "dark"}}})


@pytest.mark.parametrize("tags", ["", "<lora:night>", "<lora:night:0.8>", "<lora:evening>"])
def test_what_the_registry_has_may_be_applied(tmp_path: Path, tags: str) -> None:
    check_preset_loras(deployment(tmp_path, **SWAPPING), presets(f"{{prompt}} {tags}"))


@pytest.mark.parametrize(
    ("tags", "wrong"),
    [
        ("<lora:nihgt>", "prompt: 'nihgt' is unknown"),
        ("<lora:night:1.5>", "prompt: night at 1.5; allowed: 0 to 1"),
        ("<lora:night> <lora:evening>", "prompt: 'night' is asked for twice"),
    ],
)
def test_what_a_request_may_not_apply_is_refused(tmp_path: Path, tags: str, wrong: str) -> None:
    asked = deployment(tmp_path, **SWAPPING)
    with pytest.raises(ConfigError, match=rf"presets\.yaml: styles\.a: {wrong}"):
        check_preset_loras(asked, presets(f"{{prompt}} {tags}"))
    with pytest.raises(ConfigError, match=rf"presets\.yaml: scenes\.a: {wrong}"):
        check_preset_loras(asked, Presets.model_validate({"scenes": {"a": f"there {tags}"}}))


def test_without_swapping_only_the_fused_set_may_be_named(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"styles\.a: prompt: 'night' is unknown.*no LoRA is fused"):
        check_preset_loras(deployment(tmp_path), presets("{prompt} <lora:night>"))
    fused = deployment(tmp_path, loras={"night": {"path": "night.safetensors"}}, fuse={"night": 0.7})
    check_preset_loras(fused, presets("{prompt} <lora:night:0.7>"))
    with pytest.raises(ConfigError, match=r"styles\.a: prompt: 0\.5"):
        check_preset_loras(fused, presets("{prompt} <lora:night:0.5>"))
