"""What a deployment takes from the files that it names, as additions to its own values."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from intaglio.contract.lora_registry import load_registry
from intaglio.contract.presets import load_presets
from intaglio.errors import ConfigError
from intaglio.validation_errors import nearest

__all__ = ["with_default_preset", "with_registry"]


def with_registry(data: dict[str, Any], path: Path) -> dict[str, Any]:
    """`data` with the registry's LoRAs among `loras`, so that they can be fused.

    A LoRA that only the hub has cannot be fused: it is left out.
    """
    named = data.get("registry")
    own = data.get("loras") or {}
    if not isinstance(named, str) or not isinstance(own, dict):
        return data
    entries = load_registry(path.parent / named).loras
    if both := sorted(set(entries) & set(own)):
        raise ConfigError(f"{path}: loras.{both[0]}: {named} has a LoRA of that id too")
    found = {
        lora: {"path": str(entry.file), "weight": entry.weight, "method": entry.method}
        for lora, entry in entries.items()
        if entry.file is not None
    }
    return {**data, "loras": {**own, **found}}


def with_default_preset(data: dict[str, Any], path: Path) -> dict[str, Any]:
    """`data` with the values of `defaults.preset`.

    Raises:
        ConfigError: there is no such preset, or `defaults` states a value that the preset sets too.
    """
    defaults = data.get("defaults")
    if not isinstance(defaults, dict):
        return data
    if "preset_values" in defaults:
        raise ConfigError(f"{path}: defaults.preset_values: comes from the preset; take the field out")
    preset, named = defaults.get("preset"), data.get("presets")
    if not isinstance(preset, str) or not isinstance(named, str | None):
        return data
    known = {} if named is None else load_presets(path.parent / Path(named).expanduser()).quality
    if preset not in known:
        allowed = ", ".join(known) or "none; add presets: presets.yaml"
        wrong = f"{preset!r} is no quality preset{nearest(preset, known)}"
        raise ConfigError(f"{path}: defaults.preset: {wrong}; allowed: {allowed}")
    values = known[preset].values
    if both := sorted(set(values) & set(defaults)):
        raise ConfigError(f"{path}: defaults.{both[0]}: preset {preset} sets it too; take one of them out")
    return {**data, "defaults": {**defaults, "preset_values": values}}
