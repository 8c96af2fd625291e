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
        """The engine of a network whose files are being compared; as `Backend.load`."""
        return self._backend.load(
            network_spec(name, self._manifest.architecture),
            self._folder / self._manifest.networks[name].path,
            precision=self._manifest.precision,
            replaceable=replaceable,
        )

    def load_again(self, name: str) -> Engine:
        """The engine of a network whose files may have been changed since they were compared.

        Raises:
            EngineMismatch: a file is missing, is not the one that was built, or does not load here.
        """
        self._checked.check(self._manifest.networks[name].files)
        return self.load(name)
