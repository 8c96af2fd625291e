"""The files of a pipeline and of a single network: which are needed, and what a folder lacks."""

from __future__ import annotations

from collections.abc import Collection
from functools import partial
from pathlib import Path
from typing import Final

from intaglio.errors import BuildError
from intaglio_export.weights.checkpoint_files import choose_files, network_files, no_weights
from intaglio_export.weights.hub import HubFiles

__all__ = [
    "COMPONENTS",
    "MODEL_INDEX",
    "SCHEDULER_FILE",
    "TOKENIZERS",
    "missing_tokenizer_file",
    "model_files",
    "pipeline_files",
]

COMPONENTS: Final = ("text_encoder", "text_encoder_2", "unet", "vae")
TOKENIZERS: Final = ("tokenizer", "tokenizer_2")
MODEL_INDEX: Final = "model_index.json"
SCHEDULER_FILE: Final = "scheduler/scheduler_config.json"
_TOKENIZER_FILES: Final = ("vocab.json", "merges.txt")
_WHOLE_TOKENIZER: Final = "tokenizer.json"
"""What transformers 5 writes instead of `_TOKENIZER_FILES`."""
_MORE_TOKENIZER_FILES: Final = ("tokenizer_config.json", "special_tokens_map.json")


def pipeline_files(components: Collection[str]) -> HubFiles:
    """The files of a whole base with the weights of `components`."""
    return HubFiles(partial(_select_pipeline, components), partial(_missing_of_pipeline, components))


def model_files(subfolder: str) -> HubFiles:
    """The files of a single network."""
    return HubFiles(partial(_select_model, subfolder), partial(_missing_of_model, subfolder))


def _select_pipeline(components: Collection[str], names: Collection[str]) -> list[str]:
    found = [MODEL_INDEX, SCHEDULER_FILE, *(f"{name}/config.json" for name in COMPONENTS)]
    for tokenizer in TOKENIZERS:
        found += [f"{tokenizer}/{name}" for name in (*_TOKENIZER_FILES, *_MORE_TOKENIZER_FILES)]
        if f"{tokenizer}/{_TOKENIZER_FILES[0]}" not in names:
            found.append(f"{tokenizer}/{_WHOLE_TOKENIZER}")
    for component in components:
        found += _select_weights(component, component, names)
    return [name for name in found if name in names]


def _select_model(subfolder: str, names: Collection[str]) -> list[str]:
    folder = "" if "config.json" in names else subfolder
    config = f"{folder}/config.json" if folder else "config.json"
    if config not in names:
        raise BuildError(f"no {subfolder}: it has neither config.json nor {subfolder}/config.json")
    return [config, *_select_weights(subfolder, folder, names)]


def _select_weights(component: str, folder: str, names: Collection[str]) -> list[str]:
    """The weights of `component` in `folder` of a repository, "" for its root."""
    prefix = f"{folder}/" if folder else ""
    inside = {name.removeprefix(prefix) for name in names if name.startswith(prefix)}
    own = {name for name in inside if "/" not in name}
    chosen = choose_files(component, own)
    if chosen is None:
        raise BuildError(f"{folder or component}: {no_weights(component, own)}")
    return [f"{prefix}{name}" for name in chosen.names]


def _missing_of_pipeline(components: Collection[str], root: Path) -> str | None:
    needed = [MODEL_INDEX, SCHEDULER_FILE]
    needed += [f"{name}/config.json" for name in components or COMPONENTS]
    for name in needed:
        if not (root / name).is_file():
            return f"{name} is missing"
    if (missing := missing_tokenizer_file(root)) is not None:
        return f"{missing} is missing"
    for component in components:
        if (problem := _missing_weights(root / component, component)) is not None:
            return problem
    return None


def missing_tokenizer_file(root: Path) -> str | None:
    """The first file that the tokenizers of the pipeline in `root` lack; None where they are complete."""
    for tokenizer in TOKENIZERS:
        folder = root / tokenizer
        if (folder / _WHOLE_TOKENIZER).is_file() and not (folder / _TOKENIZER_FILES[0]).is_file():
            continue
        for name in _TOKENIZER_FILES:
            if not (folder / name).is_file():
                return f"{tokenizer}/{name}"
    return None


def _missing_of_model(subfolder: str, root: Path) -> str | None:
    folder = root if (root / "config.json").is_file() else root / subfolder
    if not (folder / "config.json").is_file():
        return "config.json is missing"
    return _missing_weights(folder, subfolder)


def _missing_weights(folder: Path, component: str) -> str | None:
    try:
        network_files(folder, component)
    except BuildError as error:
        return f"{component}: {str(error).removeprefix(f'{folder}: ')}"
    return None
