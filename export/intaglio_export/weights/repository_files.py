"""The files of a pipeline and of a single network: which are needed, and what a folder lacks."""

from __future__ import annotations

from collections.abc import Callable, Collection
from functools import partial
from pathlib import Path
from typing import Final

from intaglio.errors import BuildError
from intaglio.single_files import TOKENIZERS, needed_files
from intaglio_export.weights.checkpoint_files import choose_files, network_files, no_weights
from intaglio_export.weights.hub import HubFiles

__all__ = [
    "COMPONENTS",
    "MODEL_INDEX",
    "SCHEDULER_FILE",
    "model_files",
    "pipeline_files",
]

COMPONENTS: Final = ("text_encoder", "text_encoder_2", "unet", "vae")
MODEL_INDEX: Final = "model_index.json"
SCHEDULER_FILE: Final = "scheduler/scheduler_config.json"
_MORE_TOKENIZER_FILES: Final = ("tokenizer_config.json", "special_tokens_map.json")


def pipeline_files(components: Collection[str]) -> HubFiles:
    """The files of a whole base with the weights of `components`."""
    return HubFiles(partial(_select_pipeline, components), partial(_missing_of_pipeline, components))


def model_files(subfolder: str) -> HubFiles:
    """The files of a single network."""
    return HubFiles(partial(_select_model, subfolder), partial(_missing_of_model, subfolder))


def _select_pipeline(components: Collection[str], names: Collection[str]) -> list[str]:
    found: list[str] = []
    for component in components:
        found += _select_weights(component, component, names)
    for name in _configurations(components, names.__contains__):
        if name not in names:
            raise BuildError(f"{name} is missing")
        found.append(name)
    for tokenizer in TOKENIZERS:
        more = [f"{tokenizer}/{name}" for name in _MORE_TOKENIZER_FILES]
        found += [name for name in more if name in names]
    return found


def _configurations(components: Collection[str], is_there: Callable[[str], bool]) -> list[str]:
    """Those of `needed_files` that a base with the weights of `components` needs; all without weights."""
    others = [name for name in COMPONENTS if components and name not in components]
    return [name for name in needed_files(is_there) if name.partition("/")[0] not in others]


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
    for name in _configurations(components, lambda name: (root / name).is_file()):
        if not (root / name).is_file():
            return f"{name} is missing"
    for component in components:
        if (problem := _missing_weights(root / component, component)) is not None:
            return problem
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
