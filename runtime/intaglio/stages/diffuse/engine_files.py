"""The engine files of a build, opened by a backend and compared with what was built."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from pathlib import Path

from intaglio.builds.file_checks import CheckedFiles, FileChecks
from intaglio.builds.manifest import BuildManifest
from intaglio.contract.sdxl import network_spec
from intaglio.engines.interface import Array, Backend, Engine

__all__ = ["EngineFiles"]


class EngineFiles:
    """Opens engines by the name of their network."""

    def __init__(self, manifest: BuildManifest, folder: Path, backend: Backend) -> None:
        self._manifest = manifest
        self._folder = folder
        self._backend = backend
        self._checked = CheckedFiles(folder, command=manifest.rebuild)

    def start(self, checks: FileChecks, names: Iterable[str]) -> None:
        """Begin to compare the files of the networks `names`, also of those that are opened later.

        Raises:
            EngineMismatch: a file is missing or has another size.
        """
        for name in names:
            self._checked.note(self._manifest.networks[name].files)
            checks.start(self._manifest.networks[name].files)

    def load(self, name: str, *, replaceable: Mapping[str, Array] | None = None) -> Engine:
        """The engine of a network; as `Backend.load`. Its files are not compared here."""
        return self._backend.load(
            network_spec(name, self._manifest.architecture),
            self._folder / self._manifest.networks[name].path,
            precision=self._manifest.precision,
            replaceable=replaceable,
        )

    def check(self, name: str) -> None:
        """Compare the files of a network that is opened later, where they were changed since `start`.

        Raises:
            EngineMismatch: one is missing, or is not the one that was built.
        """
        self._checked.check(self._manifest.networks[name].files)
