"""SDXL in one file, in Stability's layout: it holds weights only, so the rest comes from a folder.

The folder holds configurations and tokenizers as a diffusers pipeline does. It is the one that the run names
(`configurations`), or the file's own, or the hub's SDXL base: what is cached of it, before the hub is asked.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from diffusers import StableDiffusionXLPipeline
from huggingface_hub import snapshot_download
from safetensors import SafetensorError, safe_open

from intaglio.single_files import SDXL_HUB_ID, needed_files, other_prediction, stated_prediction
from intaglio_train.errors import ConfigError
from intaglio_train.pipeline_parts import load_whole_tokenizers

__all__ = ["load_single_file"]


def load_single_file(file: Path, configurations: Path | None) -> Any:
    """The diffusers pipeline of `file`.

    Raises:
        ConfigError: no configurations are at hand, the file does not fit them, or it predicts neither noise
            nor velocity.
    """
    stated = _stated_prediction(file)
    folder = _configurations_of(file, configurations)
    try:
        tokenizers = load_whole_tokenizers(folder)
        absent = dict.fromkeys(tokenizers)
        pipeline = StableDiffusionXLPipeline.from_single_file(  # type: ignore[no-untyped-call]
            str(file), config=str(folder), local_files_only=True, add_watermarker=False, **absent
        )
        pipeline.register_modules(**tokenizers)
        scheduler = pipeline.scheduler
        pipeline.register_modules(scheduler=scheduler.from_config(scheduler.config, **stated))
    except Exception as error:  # diffusers' errors for foreign and damaged files share no base class
        raise ConfigError(
            f"model {file}: does not load as SDXL with configurations of {folder}: {str(error)[:200]}"
        ) from error
    return pipeline


def _stated_prediction(file: Path) -> dict[str, Any]:
    """What the file says of its prediction, as keys of the scheduler's configuration."""
    try:
        with safe_open(file, "pt") as tensors:
            names, metadata = tensors.keys(), tensors.metadata() or {}
    except (OSError, SafetensorError) as error:
        raise ConfigError(f"model {file}: is not a whole .safetensors file: {error}") from error
    problem = other_prediction(names, metadata)
    if problem is not None:
        raise ConfigError(f"model {file}: {problem}; take a checkpoint that predicts noise or velocity")
    return stated_prediction(names, metadata)


def _configurations_of(file: Path, named: Path | None) -> Path:
    if named is not None:
        missing = _missing(named)
        if missing:
            raise ConfigError(
                f"configurations {named}: has no {missing};"
                " name a diffusers SDXL folder, with or without weights"
            )
        return named
    if not _missing(file.parent):
        return file.parent
    for only_cached in (True, False):
        folder = _hub_folder(only_cached=only_cached)
        if folder is not None and not _missing(folder):
            return folder
    raise ConfigError(
        f"model {file}: a single file has no configurations and tokenizers, and the hub does not give"
        f" {SDXL_HUB_ID}'s; set configurations: to a diffusers SDXL folder"
    )


def _missing(folder: Path) -> str | None:
    """The first configuration that `folder` does not hold."""

    def is_there(name: str) -> bool:
        return (folder / name).is_file()

    return next((name for name in needed_files(is_there) if not is_there(name)), None)


def _hub_folder(*, only_cached: bool) -> Path | None:
    try:
        folder: str = snapshot_download(
            SDXL_HUB_ID, allow_patterns=["*.json", "*/*.json", "*/*.txt"], local_files_only=only_cached
        )
    except Exception:  # requests', httpx', the hub's and the system's errors share no base class
        return None
    return Path(folder)
