"""The configuration that peft keeps of an adapter, from which the scale of each layer follows.

diffusers writes it into the file (metadata `lora_adapter_metadata`). peft's own `save_pretrained` writes it
beside the file (`adapter_config.json`). `lora_bytes` puts the second into the form of the first, so that the
bytes of a file say everything about it wherever they are copied.
"""

from __future__ import annotations

import hashlib
import itertools
import json
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from intaglio.errors import LoraRefused
from intaglio.loras.tensor_files import TensorFile, map_tensor_file, with_metadata

__all__ = [
    "PEFT_PREFIX",
    "AdapterConfiguration",
    "adapter_configurations",
    "lora_bytes",
    "lora_digest",
    "lora_files",
]

PEFT_PREFIX: Final = "base_model.model."
"""Before every key of a file that peft itself wrote."""
_METADATA: Final = "lora_adapter_metadata"
_BESIDE: Final = "adapter_config.json"
_COMPONENTS: Final = ("unet", "text_encoder", "text_encoder_2")
_LARGEST_CONFIGURATION: Final = 4 * 2**20
"""Bytes; real ones have a few thousand."""
_METHODS: Final = ("LORA", "LOHA", "LOKR")
_OTHER_BASE: Final = ("pissa", "olora", "corda", "loftq", "lora_ga")
"""Initialisations that change the base itself: such an adapter fits the changed base only."""
_UNSUPPORTED: Final = (
    "alora_invocation_tokens",
    "arrow_config",
    "fan_in_fan_out",
    "layer_replication",
    "lora_bias",
    "target_parameters",
    "use_bdlora",
    "use_qalora",
)
"""Options of peft that change what an adapter computes."""

# Patterns come from files, and Python's regular expressions may take exponential time. These limits bound it.
_TOKEN: Final = re.compile(r"\\[.dwDW]|\[[\w.-]+\]|\(\?:|[\w.^$()|]|[*+?]")
_MOST_CHOICES: Final = 2**16
"""Ways to match that the patterns of one component may have together."""
_CHOICES_OF_REPEAT: Final = 128
"""About the length of a layer's name."""


@dataclass(frozen=True)
class _Pattern:
    """A key of `rank_pattern` or `alpha_pattern`, and its value."""

    end: str
    """Every name that matches ends so; cheaper to test than the expression."""
    expression: re.Pattern[str]
    value: float


@dataclass(frozen=True)
class AdapterConfiguration:
    """What peft knows of the adapter of one component."""

    rank: int
    alpha: float
    ranks: tuple[_Pattern, ...] = ()
    alphas: tuple[_Pattern, ...] = ()
    rslora: bool = False
    """Whether alpha is divided by the root of the rank (arXiv 2312.03732)."""
    dora: bool = False

    def rank_of(self, layer: str) -> float:
        """The rank of `layer` as configured."""
        return _first_match(self.ranks, layer, otherwise=self.rank)

    def scale_of(self, layer: str) -> float:
        """What multiplies the update of `layer`."""
        rank = self.rank_of(layer)
        return _first_match(self.alphas, layer, otherwise=self.alpha) / (rank**0.5 if self.rslora else rank)


def adapter_configurations(metadata: Mapping[str, str]) -> dict[str, AdapterConfiguration]:
    """The configuration of each component that the metadata of a file has one for.

    Raises:
        ValueError: damaged, or with options that are not supported.
    """
    text = metadata.get(_METADATA)
    if text is None:
        return {}
    values = _object(text, _METADATA)
    found = {}
    for component in _COMPONENTS:
        start = f"{component}."
        own = {name.removeprefix(start): value for name, value in values.items() if name.startswith(start)}
        if own:
            found[component] = _configuration(own)
    return found


def lora_files(path: Path) -> tuple[Path, ...]:
    """The files that say what the LoRA at `path` is: itself, and peft's configuration where that counts."""
    beside = path.with_name(_BESIDE)
    return (path, beside) if beside.is_file() and _is_pefts(path) else (path,)


def lora_bytes(lora: str, path: Path) -> bytes:
    """The bytes of the LoRA file at `path`; their metadata have the configuration that peft wrote beside it.

    The same files always give the same bytes.

    Raises:
        LoraRefused: a file cannot be read, or the configuration is damaged.
    """
    try:
        data = path.read_bytes()
        beside = path.with_name(_BESIDE)
        if not beside.is_file() or not _is_pefts(path):
            return data
        if beside.stat().st_size > _LARGEST_CONFIGURATION:
            raise ValueError(f"{_BESIDE} is larger than {_LARGEST_CONFIGURATION} bytes")
        values = _object(beside.read_text(encoding="utf-8"), _BESIDE)
        named = {f"unet.{name}": value for name, value in values.items()}
        return with_metadata(data, {_METADATA: json.dumps(named)})
    except OSError as error:
        raise LoraRefused(lora, f"{error.filename or path}: {error.strerror or error}") from error
    except ValueError as error:
        raise LoraRefused(lora, f"{path}: {error}") from error


def lora_digest(lora: str, path: Path) -> str | None:
    """sha256 of a LoRA that consists of two files; None where it is the file at `path` alone.

    Raises:
        LoraRefused: a file cannot be read, or the configuration is damaged.
    """
    if len(lora_files(path)) == 1:
        return None
    return hashlib.sha256(lora_bytes(lora, path)).hexdigest()


def _is_pefts(path: Path) -> bool:
    try:
        return _lacks_configuration(map_tensor_file(path))
    except (OSError, ValueError):
        return False  # whoever reads it says what is wrong


def _lacks_configuration(file: TensorFile) -> bool:
    """Whether peft wrote the file, and did so without diffusers, which keeps the configuration in it."""
    pefts = bool(file.tensors) and all(name.startswith(PEFT_PREFIX) for name in file.tensors)
    return pefts and _METADATA not in file.metadata


def _object(text: str, name: str) -> dict[str, Any]:
    try:
        values = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise ValueError(f"its {name} is damaged: no JSON, or nested too deeply") from error
    if not isinstance(values, dict):
        raise ValueError(f"its {name} is damaged: it should be a JSON object")
    return values


def _configuration(values: Mapping[str, Any]) -> AdapterConfiguration:
    method = values.get("peft_type") or "LORA"
    if method not in _METHODS:
        raise ValueError(f"its configuration is for peft's {method!r}; supported are {', '.join(_METHODS)}")
    if unsupported := [name for name in _UNSUPPORTED if values.get(name)]:
        raise ValueError(f"its configuration has {unsupported[0]}, which is not supported")
    start = values.get("init_lora_weights")
    if isinstance(start, str) and start.lower().startswith(_OTHER_BASE):
        raise ValueError(
            f"it was trained on a base changed by {start!r}; convert it to a plain LoRA with peft"
            " (path_initial_model_for_weight_conversion)"
        )
    rank = _number(values, "r", least=1)
    if rank != int(rank):
        raise ValueError(f"its configuration has r = {rank}; it should be a whole number")
    return AdapterConfiguration(
        rank=int(rank),
        alpha=_number(values, "lora_alpha" if "lora_alpha" in values else "alpha"),
        ranks=_patterns(values, "rank_pattern", least=1),
        alphas=_patterns(values, "alpha_pattern"),
        rslora=bool(values.get("use_rslora")),
        dora=bool(values.get("use_dora")),
    )


def _number(values: Mapping[str, Any], name: str, *, least: float = -1e9) -> float:
    value = values.get(name)
    if isinstance(value, bool) or not isinstance(value, int | float) or not least <= value <= 1e9:
        raise ValueError(f"its configuration has {name} = {str(value)[:40]}; it should be a number")
    return float(value)


def _patterns(values: Mapping[str, Any], name: str, *, least: float = -1e9) -> tuple[_Pattern, ...]:
    entries = values.get(name) or {}
    if not isinstance(entries, dict):
        raise ValueError(f"its configuration's {name} is no JSON object")
    patterns, choices = [], 0
    for key in entries:
        plain = re.fullmatch(r"[\w.]*", key) is not None
        choices += 0 if plain else _choices(key)
        if len(key) > 512 or choices > _MOST_CHOICES:
            raise ValueError(f"its configuration's {name} takes too long to match ({key[:40]!r})")
        try:
            # peft 0.17, peft/utils/other.py, get_pattern_key
            expression = re.compile(rf"(.*\.)?({key})$")
        except re.error as error:
            raise ValueError(f"its configuration's {name} has {key[:40]!r}: {error}") from error
        end = key.rpartition(".")[2] if plain else ""
        patterns.append(_Pattern(end, expression, _number(entries, key, least=least)))
    return tuple(patterns)


def _choices(key: str) -> int:
    """How many ways there are to match `key`, about; ValueError for what is not bounded."""
    tokens = _TOKEN.findall(key)
    repeated_group = any(pair[0] == ")" and pair[1] in "*+" for pair in itertools.pairwise(tokens))
    if "".join(tokens) != key or repeated_group:
        raise ValueError(f"its configuration has the pattern {key[:40]!r}, of a kind that is not supported")
    choices = 1
    for token in tokens:
        if token in ("*", "+"):
            choices *= _CHOICES_OF_REPEAT
        elif token in ("?", "|"):
            choices *= 2
        if choices > _MOST_CHOICES:
            break
    return choices


def _first_match(patterns: tuple[_Pattern, ...], layer: str, *, otherwise: float) -> float:
    for pattern in patterns:
        if layer.endswith(pattern.end) and pattern.expression.match(layer):
            return pattern.value
    return otherwise
