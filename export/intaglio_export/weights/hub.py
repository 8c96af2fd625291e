"""Repositories of the Hugging Face hub: the cached snapshot where it is complete, and the hub otherwise."""

from __future__ import annotations

import glob
import logging
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from intaglio.errors import BuildError
from intaglio_export.weights.hub_problems import hub_problem, is_storage_problem

__all__ = ["AbsentError", "HubFiles", "cached_snapshot", "files_to_fetch", "hub_file", "hub_folder"]

log = logging.getLogger(__name__)


class AbsentError(Exception):
    """A source is not available: the next candidate is tried."""


@dataclass(frozen=True, slots=True)
class HubFiles:
    """Which files of a repository are needed."""

    select: Callable[[Collection[str]], list[str]]
    """All files of the repository -> those to fetch; BuildError where it has not what is needed."""
    missing: Callable[[Path], str | None]
    """A snapshot -> the first thing that it lacks; None where it is complete."""


def cached_snapshot(name: str, revision: str | None) -> Path | None:
    """The snapshot in the cache, which may be incomplete; None where there is none."""
    from huggingface_hub import snapshot_download  # noqa: PLC0415  (slow to import, and seldom needed)

    # Without patterns, huggingface_hub 2 refuses a snapshot that lacks any file of the repository.
    options: dict[str, Any] = {"local_files_only": True, "allow_patterns": []}
    try:
        return Path(snapshot_download(name, revision=revision, **options))
    except Exception as error:  # not cached, a damaged cache, ...: they share no base class
        log.debug("%s is not cached: %s", name, error)
        return None


def hub_folder(name: str, revision: str | None, files: HubFiles, *, fetch: bool = True) -> Path:
    """The snapshot of a repository. A complete one in the cache is preferred, so that a later build uses the
    same files; of an incomplete one the rest is fetched. Without `fetch` the hub is not asked.

    Raises:
        AbsentError: it is not cached, and the hub does not give it or is not asked.
        BuildError: it is cached in part and the hub does not give the rest, the repository lacks what is
            needed, or this machine cannot keep the download.
    """
    from huggingface_hub import snapshot_download  # noqa: PLC0415  (as above)

    cached = cached_snapshot(name, revision)
    lacks = None if cached is None else files.missing(cached)
    if cached is not None and lacks is None:
        return cached
    if not fetch:
        raise AbsentError("not in the cache" if lacks is None else f"only a part is in the cache ({lacks})")
    try:
        wanted = files.select(_listing(name, revision))
        patterns = [glob.escape(path) for path in wanted]
        return Path(snapshot_download(name, revision=revision, allow_patterns=patterns))
    except BuildError as error:
        raise BuildError(f"hub:{name}: {error}") from error
    except Exception as error:  # httpx, requests, OSError, hub errors share no base class
        reason = hub_problem(error, name=name, revision=revision)
        if is_storage_problem(error):
            raise BuildError(f"hub:{name}: {reason}") from error
        if lacks is not None:
            raise BuildError(
                f"hub:{name}: only a part of it is in the cache ({lacks}), and {reason}; "
                "the next build continues the download"
            ) from error
        raise AbsentError(reason) from error


def hub_file(name: str, path: str) -> Path:
    """One file of a repository; it is fetched once.

    Raises:
        AbsentError: it is not cached, and the hub does not give it.
    """
    from huggingface_hub import hf_hub_download  # noqa: PLC0415  (as above)

    try:
        return Path(hf_hub_download(name, path))
    except Exception as error:  # as in hub_folder
        raise AbsentError(hub_problem(error, name=name)) from error


def files_to_fetch(name: str, revision: str | None, files: HubFiles) -> dict[str, int]:
    """Bytes of every file that `hub_folder` would fetch now; only asks.

    Raises:
        AbsentError: the hub does not say.
        BuildError: the repository lacks what is needed.
    """
    try:
        sizes = _listing(name, revision)
    except Exception as error:  # as in hub_folder
        raise AbsentError(hub_problem(error, name=name, revision=revision)) from error
    try:
        wanted = files.select(sizes)
    except BuildError as error:
        raise BuildError(f"hub:{name}: {error}") from error
    cached = cached_snapshot(name, revision)
    return {path: sizes[path] for path in wanted if cached is None or not (cached / path).is_file()}


def _listing(name: str, revision: str | None) -> Mapping[str, int]:
    """Bytes of every file of the repository."""
    from huggingface_hub import HfApi  # noqa: PLC0415  (as above)

    found: Any = HfApi().model_info(name, revision=revision, files_metadata=True)
    return {one.rfilename: one.size or 0 for one in found.siblings or ()}
