"""Assemble the deployment folder from the store.

Engines are hard links into the store, or copies on another file system. The manifest changes last, so a
reader sees the old build or the new one.
"""

from __future__ import annotations

import errno
import os
import shutil
import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from intaglio.builds.file_checks import FileDigest
from intaglio.builds.holds import PARTS, locked_unless_held
from intaglio.builds.manifest import (
    MANIFEST_NAME,
    RUNTIME_CACHE_NAME,
    BuildManifest,
    read_manifest,
    write_manifest,
)
from intaglio.errors import BuildError, EngineMismatch
from intaglio.whole_files import storage_problem
from intaglio_export.deployment.manifest import pristine_file, repository_options
from intaglio_export.deployment.repository import (
    REPOSITORY,
    RepositoryOptions,
    repository_files,
    write_repository,
)
from intaglio_export.deployment.support_files import SupportFiles
from intaglio_export.plan.digests import DigestCache
from intaglio_export.plan.plan import Plan
from intaglio_export.plan.stages import StageOutcome

__all__ = ["Assembly", "assemble", "assembly_of"]

_NAME: Final = "repository"


@dataclass(frozen=True)
class Assembly:
    """A deployment folder as it shall be."""

    folder: Path
    manifest: BuildManifest
    repository: RepositoryOptions
    sources: Mapping[str, Path]
    """Where each file of the folder comes from."""
    digests: DigestCache

    @property
    def files(self) -> dict[str, FileDigest]:
        """Every file that the manifest names."""
        found = dict(self.manifest.files)
        for network in self.manifest.networks.values():
            found |= network.files
        return found


def assembly_of(plan: Plan, manifest: BuildManifest, support: SupportFiles, *, folder: Path) -> Assembly:
    """The folder of `manifest`; engines and what lies beside them come from the store of `plan`."""
    sources = dict(support.sources)
    for network, file in manifest.networks.items():
        stored = plan.store.path(plan.engine(network))
        sources |= {name: stored / Path(name).relative_to(Path(file.path).parent) for name in file.files}
        pristine = pristine_file(plan, network)
        if file.pristine is not None and pristine is not None:
            sources[file.pristine] = pristine
        kernels = Path(file.path).with_name(RUNTIME_CACHE_NAME)  # what verification compiled for this card
        if (stored / kernels.name).is_file() and not (folder / kernels).is_file():
            sources[str(kernels)] = stored / kernels.name
    repository = repository_options(plan, build_key=manifest.key)
    return Assembly(folder, manifest, repository, sources, plan.store.digests)


def assemble(assembly: Assembly, *, force: bool) -> StageOutcome:
    """Make the folder what `assembly` says, and remove what earlier builds left and no server holds.

    Raises:
        BuildError: it cannot be written; the earlier build is still whole.
    """
    started = time.perf_counter()
    reason = "forced" if force else _why(assembly)
    if reason is None:
        _remove_unlisted(assembly)  # a server may have held an earlier build until now
        return StageOutcome(_NAME, False, "unchanged", 0.0)
    try:
        _place_files(assembly, force=force)
        write_repository(assembly.folder / REPOSITORY, assembly.repository)
        write_manifest(assembly.folder, assembly.manifest)
        _remove_unlisted(assembly)
    except OSError as error:
        raise BuildError(
            f"{assembly.folder}: {storage_problem(error)}; the build that was there is still whole"
        ) from error
    _remember_digests(assembly)
    return StageOutcome(_NAME, True, reason, time.perf_counter() - started)


def _why(assembly: Assembly) -> str | None:
    """Why the folder must be written; None when it is this build, whole."""
    folder = assembly.folder
    if not (folder / MANIFEST_NAME).is_file():
        return "not built yet"
    try:
        present = read_manifest(folder)
    except EngineMismatch:
        return "its manifest cannot be read"
    if present != assembly.manifest:
        return _changed_fields(present, assembly.manifest)
    return assembly.digests.damage(folder, assembly.files) or _repository_damage(assembly)


def _changed_fields(present: BuildManifest, manifest: BuildManifest) -> str:
    names = [name for name in BuildManifest.model_fields if name != "key"]
    changed = [name for name in names if getattr(present, name) != getattr(manifest, name)]
    return f"changed: {', '.join(changed) or 'model repository'}"


def _repository_damage(assembly: Assembly) -> str | None:
    for name, text in repository_files(assembly.repository).items():
        path = assembly.folder / REPOSITORY / name
        if not path.is_file() or path.read_text(encoding="utf-8", errors="replace") != text:
            return f"{REPOSITORY}/{name} differs"
    return None


def _place_files(assembly: Assembly, *, force: bool) -> None:
    """Place every file that is not there already, since a server may be reading those that are."""
    files = assembly.files
    for name, source in assembly.sources.items():
        target = assembly.folder / name
        # What a card compiled is no file of the manifest; it is a source only where the folder has none.
        expected = {name: files[name]} if name in files else {}
        present = bool(expected) and assembly.digests.damage(assembly.folder, expected) is None
        if force or not present:
            linked = name.startswith("engines/") and target.name != RUNTIME_CACHE_NAME
            _place(source, target, linked=linked)


def _place(source: Path, target: Path, *, linked: bool) -> None:
    """Make `target` the file `source` atomically.

    Engines are linked, because they are large and never written again.
    """
    target.parent.mkdir(parents=True, exist_ok=True)
    new = target.with_name(f"{target.name}.new")
    new.unlink(missing_ok=True)
    try:
        if not linked:
            raise OSError(errno.EXDEV, "copy")
        os.link(source, new)
    except OSError:
        shutil.copyfile(source, new)
    # A rename over a link of the same file does nothing and would leave `new`.
    if target.exists() and target.samefile(new):
        new.unlink()
    else:
        new.replace(target)


def _remove_unlisted(assembly: Assembly) -> None:
    """Remove the folders of earlier builds, except those that a server holds."""
    folder = assembly.folder
    wanted = set(assembly.manifest.listed)
    for network in assembly.manifest.networks.values():
        wanted.add(str(Path(network.path).with_name(RUNTIME_CACHE_NAME)))
    for room in PARTS:
        for item in sorted((folder / room).glob("*")):
            with locked_unless_held(item) as unheld:
                if unheld:
                    _remove_all_but(wanted, item, folder=folder)


def _remove_all_but(wanted: set[str], item: Path, *, folder: Path) -> None:
    """Remove the files of `item` that are not wanted, and then its empty folders."""
    for path in (*sorted(item.rglob("*"), reverse=True), item):
        if path.is_file() and str(path.relative_to(folder)) not in wanted:
            path.unlink()
        elif path.is_dir() and not any(path.iterdir()):
            path.rmdir()


def _remember_digests(assembly: Assembly) -> None:
    """So that the next build need not hash the folder's files."""
    files = assembly.files
    for name, source in assembly.sources.items():
        target = assembly.folder / name
        if name in files and target.samefile(source):  # a link to a file that was hashed already
            assembly.digests.remember(target, files[name])
        else:
            assembly.digests.digest_unchecked(target)
