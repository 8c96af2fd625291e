"""Weights that a build downloaded from the hub, found in the hub's cache on this machine."""

# ruff: noqa: PLC0415  (huggingface_hub is an extra)

from __future__ import annotations

from pathlib import Path

from intaglio.contract.detectors import DetectorSource
from intaglio.errors import ConfigError, MissingExtra

__all__ = ["cached_detector"]


def cached_detector(name: str, source: DetectorSource) -> DetectorSource:
    """`source` with the folder of its snapshot instead of the hub. Nothing is downloaded.

    Raises:
        ConfigError: the cache has no snapshot of it.
        MissingExtra: huggingface_hub is not installed.
    """
    if source.hub is None:
        return source
    try:
        from huggingface_hub import snapshot_download
    except ImportError as error:
        raise MissingExtra("huggingface_hub", extra="controlnet-aux") from error
    try:
        folder = snapshot_download(source.hub, revision=source.revision, local_files_only=True)
    except Exception as error:  # not cached, a damaged cache, ...: they share no base class
        problem = f"hub:{source.hub} is not on this machine"
        raise ConfigError(f"detectors.{name}: {problem}; intaglio build downloads it") from error
    return source.fetched(Path(folder))
