"""Detectors whose weights come from the hub."""

from __future__ import annotations

import logging
from collections.abc import Collection
from pathlib import Path

from intaglio.contract.detectors import DetectorSource
from intaglio.errors import BuildError
from intaglio_export.weights.hub import AbsentError, HubFiles, hub_folder

__all__ = ["fetched_detector"]

log = logging.getLogger(__name__)


def fetched_detector(source: DetectorSource, *, fetch: bool = True) -> DetectorSource:
    """`source` with the folder of its snapshot instead of the hub; `source` itself where the hub gives none,
    since pictures need no detector.

    Raises:
        NotFetchedError: without `fetch`, the hub gives it.
        BuildError: the repository lacks a file that the detector needs, or this machine cannot keep it.
    """
    if source.hub is None:
        return source
    wanted = source.weights

    def select(names: Collection[str]) -> list[str]:
        if absent := [name for name in wanted if name not in names]:
            raise BuildError(f"has no {', '.join(absent)}; name a repository that has it, or a folder")
        return list(wanted)

    def missing(snapshot: Path) -> str | None:
        return next((name for name in wanted if not (snapshot / name).is_file()), None)

    try:
        snapshot = hub_folder(source.hub, source.revision, HubFiles(select, missing), fetch=fetch)
    except AbsentError as error:
        log.warning("detector of hub:%s: %s", source.hub, error)
        return source
    return source.fetched(snapshot)
