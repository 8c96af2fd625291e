"""Repositories and files of the Hugging Face hub: from the cache, or from the hub."""

from __future__ import annotations

import glob
import logging
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from intaglio.errors import BuildError
from intaglio_export.weights.hub_problems import hub_problem, is_storage_problem

__all__ = ["AbsentError", "HubFiles", "NotFetchedError", "hub_file", "hub_folder"]

log = logging.getLogger(__name__)


class AbsentError(Exception):
    """A source is not available: the next candidate is tried."""


class NotFetchedError(Exception):
    """A source is not on this machine, and the hub gives it: a build would download it."""

    def __init__(self, source: str, size: int, *, passed_over: Collection[str] = ()) -> None:
        """`size` is in bytes; `passed_over` are preferred sources, each with the reason why it is absent."""
        super().__init__(f"{source}: {size} bytes to download")
        self.source = source
        self.size = size
        self.passed_over = tuple(passed_over)


@dataclass(frozen=True, slots=True)
class HubFiles:
    """Which files of a repository are needed."""

    select: Callable[[Collection[str]], list[str]]
    """All files of the repository -> those to fetch; BuildError where it has not what is needed."""
    missing: Callable[[Path], str | None]
    """A snapshot -> the first thing that it lacks; None where it is complete."""


def _cached_snapshot(name: str, revision: str | None) -> Path | None:
    """The snapshot in the cache, which may be incomplete; None where there is none."""
    from huggingface_hub import snapshot_download  # noqa: PLC0415  (slow to import, and seldom needed)

    try:
        return Path(snapshot_download(name, revision=revision, local_files_only=True))
    except Exception as error:  # not cached, a damaged cache, ...: they share no base class
        log.debug("%s is not cached: %s", name, error)
        return None


def hub_folder(name: str, revision: str | None, files: HubFiles, *, fetch: bool = True) -> Path:
    """The snapshot of a repository. A complete one in the cache is preferred, so that a later build uses the
    same files; of an incomplete one the rest is fetched. Without `fetch` the hub is only asked.

    Raises:
        AbsentError: it is not cached, and the hub does not give it.
        NotFetchedError: without `fetch`, the hub gives it.
        BuildError: it is cached in part and the hub does not give the rest, the repository lacks what is
            needed, or this machine cannot keep the download.
    """
    from huggingface_hub import snapshot_download  # noqa: PLC0415  (as above)

    cached = _cached_snapshot(name, revision)
    lacks = None if cached is None else files.missing(cached)
    if cached is not None and lacks is None:
        return cached
    try:
        sizes = _listing(name, revision)
        wanted = files.select(sizes)
        if fetch:
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
    absent = [path for path in wanted if cached is None or not (cached / path).is_file()]
    if cached is None or absent:
        raise NotFetchedError(f"hub:{name}", sum(sizes[path] for path in absent))
    return cached


def hub_file(name: str, path: str, *, fetch: bool = True) -> Path:
    """The file `path` of a repository: the hub's where it can be asked, otherwise the one in the cache.

    Raises:
        AbsentError: neither has it.
        NotFetchedError: without `fetch`, the hub has it and the cache does not.
        BuildError: this machine cannot keep the download.
    """
    from huggingface_hub import hf_hub_download, try_to_load_from_cache  # noqa: PLC0415  (as above)

    found = try_to_load_from_cache(name, path)
    cached = Path(found) if isinstance(found, str) else None
    try:
        # Not asked for the file itself: without a hub, that is tried again for 23 seconds.
        file = _described(name, None).get(path)
    except Exception as error:  # as in hub_folder
        if cached is None:
            raise AbsentError(hub_problem(error, name=name)) from error
        return cached
    if file is None:
        raise AbsentError("the repository has no such file")
    if cached is not None and cached.resolve().name == file.digest:
        return cached
    if not fetch:
        raise NotFetchedError(f"hub:{name}/{path}", file.size)
    try:
        return Path(hf_hub_download(name, path))
    except Exception as error:  # as in hub_folder
        reason = hub_problem(error, name=name)
        if is_storage_problem(error):
            raise BuildError(f"hub:{name}/{path}: {reason}") from error
        raise AbsentError(reason) from error


@dataclass(frozen=True, slots=True)
class _HubFile:
    size: int
    """Bytes."""
    digest: str | None
    """Names the file's content in the cache."""


def _listing(name: str, revision: str | None) -> Mapping[str, int]:
    """Bytes of every file of the repository, which the hub would give."""
    return {path: file.size for path, file in _described(name, revision).items()}


def _described(name: str, revision: str | None) -> Mapping[str, _HubFile]:
    """Every file of the repository, which the hub would give."""
    from huggingface_hub import HfApi  # noqa: PLC0415  (as above)

    found: Any = HfApi().model_info(name, revision=revision, files_metadata=True)
    if found.gated:  # the hub describes such a repository to everybody, but gives it to few
        HfApi().auth_check(name)
    files = {}
    for one in found.siblings or ():
        digest = one.blob_id if one.lfs is None else one.lfs.sha256
        files[one.rfilename] = _HubFile(one.size or 0, digest)
    return files
