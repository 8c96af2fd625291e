"""Which results in the store no build needs any more, and their removal.

A result stays where the manifest of a build names its stage and key, and where it is one of the newest of its
stage. A store may serve builds in several folders, so it keeps a list of them (`builds.json`).
"""

from __future__ import annotations

import json
from collections.abc import Collection, Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from intaglio.builds.manifest import MANIFEST_NAME, BuildManifest, read_manifest, write_json
from intaglio.errors import EngineMismatch
from intaglio.whole_files import storage_problem
from intaglio_export.plan.records import RECORD_NAME
from intaglio_export.plan.stages import StageStore

__all__ = ["KEPT_RESULTS", "Pruned", "prune"]

KEPT_RESULTS: Final = 2
"""Newest results of every stage that are kept though no build names them, unless the command line says
otherwise.
"""
_BUILDS: Final = "builds.json"


@dataclass(frozen=True, slots=True)
class Pruned:
    """What a pruning removed."""

    results: int = 0
    bytes: int = 0
    """Of the disk that are free now. A file that a build still links to frees nothing."""
    prevented: str | None = None
    """Why nothing, or no more, could be removed."""


def prune(store: StageStore, folder: Path, *, keep: int | None) -> Pruned:
    """Remove results that no build of `store` names, except the newest `keep` of every stage; None keeps all.

    `folder` is the build that was just made, which the store knows from now on. The store must be locked. The
    build is complete, so an error of the disk does not end it.
    """
    try:
        return _pruned(store, folder, keep)
    except OSError as error:
        return Pruned(prevented=f"earlier results were not removed: {store.folder}: {storage_problem(error)}")


def _pruned(store: StageStore, folder: Path, keep: int | None) -> Pruned:
    builds = _builds_of(store, folder)
    write_json(store.folder / _BUILDS, [str(build) for build in builds])
    if keep is None:
        store.digests.save()
        return Pruned()
    try:
        manifests = [read_manifest(build) for build in builds]
    except EngineMismatch as error:
        return Pruned(
            prevented=f"nothing was pruned, since it is not known what a build needs: {error.reason}"
        )
    named = {store.result_path(name, key) for name, key in _named(manifests)}
    freed, count = 0, 0
    for results in _results_by_stage(store.folder):
        unnamed = [result for result in results if result not in named]
        for result in unnamed[keep:]:
            freed += _freed_bytes(result)
            store.remove(result)
            count += 1
    for place in (store.folder, store.folder.parent):
        store.digests.forget_missing(below=place)
    store.digests.save()
    return Pruned(count, freed)


def _builds_of(store: StageStore, folder: Path) -> list[Path]:
    """Every build that uses the store: those beside it and those that it has a list of."""
    found = {folder.resolve()}
    # The store may be a link that several folders of builds share. A copy also lists the original's builds.
    for build in _listed(store.folder / _BUILDS):
        if (build.parent / store.folder.name).resolve() == store.folder.resolve():
            found.add(build)
    for place in (store.folder.parent, store.folder.resolve().parent):
        found.update(path.parent.resolve() for path in place.glob(f"*/{MANIFEST_NAME}"))
    return sorted(build for build in found if (build / MANIFEST_NAME).is_file())


def _listed(path: Path) -> Iterable[Path]:
    try:
        return [Path(build) for build in json.loads(path.read_text(encoding="utf-8"))]
    except (OSError, ValueError, TypeError):
        return []


def _named(manifests: Collection[BuildManifest]) -> Iterable[tuple[str, str]]:
    """Stage and key of every result that a manifest names. An earlier version named engines only."""
    for manifest in manifests:
        yield from manifest.stages.items()
        for network, file in manifest.networks.items():
            yield f"engine/{network}", file.key


def _results_by_stage(store: Path) -> Iterable[list[Path]]:
    """The results of every stage, the newest first."""
    stages: dict[Path, list[Path]] = {}
    for record in [*store.glob(f"*/*/{RECORD_NAME}"), *store.glob(f"*/*/*/{RECORD_NAME}")]:
        stages.setdefault(record.parent.parent, []).append(record.parent)
    for results in stages.values():
        yield sorted(results, key=lambda result: (result / RECORD_NAME).stat().st_mtime_ns, reverse=True)


def _freed_bytes(result: Path) -> int:
    """Bytes of the files that no build links to."""
    statuses = (path.stat() for path in result.rglob("*") if path.is_file())
    return sum(status.st_size for status in statuses if status.st_nlink == 1)
