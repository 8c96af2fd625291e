"""The builds that one server's Triton has loaded, as version folders of a model repository of its own.

    <workspace>/model_repository/diffuse/config.pbtxt      the build's, with the versions to load
    <workspace>/model_repository/diffuse/2/manifest.json   which build version 2 is
    <workspace>/model_repository/sdxl/config.pbtxt         names the version of every stage
The public ensemble `sdxl` names one version for all of its stages, so that a request is of one build from its
first step to its last. The repository belongs to one server: two servers of one build may be at different
versions of it.
"""

from __future__ import annotations

import contextlib
import shutil
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from google.protobuf import text_format  # type: ignore[import-untyped]
from tritonclient.grpc import model_config_pb2

from intaglio.builds.holds import BuildHold
from intaglio.builds.manifest import BuildManifest, read_manifest, write_manifest
from intaglio.contract.models import DIFFUSE
from intaglio.errors import EngineMismatch, Unavailable
from intaglio.triton_models.served_build import BUILD_KEY_PARAMETER
from intaglio.whole_files import storage_problem, write_whole

__all__ = ["REPOSITORY", "ServedRepository", "ServedVersion", "read_version"]

REPOSITORY: Final = "model_repository"
_BUILT: Final = "1"
"""The one version folder of a build's own repository."""


@dataclass(frozen=True, slots=True)
class ServedVersion:
    """A build under the number that this server gave it; what its restart needs is here, whatever is built
    meanwhile.
    """

    number: int
    manifest: BuildManifest
    configs: Mapping[str, Any]
    """config.pbtxt by model, without what differs from build to build."""
    programs: Mapping[str, str]
    """model.py of the Python models."""
    hold: BuildHold

    @property
    def stages(self) -> tuple[str, ...]:
        """The Python models, first the one that fails first."""
        return tuple(sorted(self.programs, key=lambda model: (model != DIFFUSE.name, model)))

    @property
    def ensembles(self) -> tuple[str, ...]:
        """The models that clients ask."""
        return tuple(model for model in self.configs if model not in self.programs)

    @property
    def shown(self) -> str:
        """For people."""
        return f"version {self.number} (build {self.manifest.key[:12]})"


def read_version(folder: Path, manifest: BuildManifest, *, number: int, hold: BuildHold) -> ServedVersion:
    """The build in `folder`, of which `manifest` was read.

    Raises:
        EngineMismatch: its model repository is missing, damaged or of another build.
    """
    configs, programs = {}, {}
    try:
        for path in sorted((folder / REPOSITORY).glob("*/config.pbtxt")):
            config: Any = text_format.Parse(path.read_text(encoding="utf-8"), model_config_pb2.ModelConfig())
            if config.platform != "ensemble":
                programs[config.name] = (path.parent / _BUILT / "model.py").read_text(encoding="utf-8")
                key = config.parameters[BUILD_KEY_PARAMETER].string_value
                if key and key != manifest.key:
                    reason = f"the model repository was written for build {key[:12]}, {folder} holds {manifest.key[:12]}"
                    raise EngineMismatch(reason, command=manifest.rebuild)
                # Triton loads a model's other versions again when anything but their list changes.
                del config.parameters[BUILD_KEY_PARAMETER]
            configs[config.name] = config
    except (OSError, ValueError, text_format.ParseError) as error:
        raise EngineMismatch(f"{folder / REPOSITORY}: {error}", command=manifest.rebuild) from error
    return ServedVersion(number, manifest, configs, programs, hold)


class ServedRepository:
    """What Triton reads. Only lists of versions and the ensemble's choice ever change; a version folder never
    does.

    What is right already is left alone, so that a restart needs no room on the disk. All that write raise
    Unavailable where they cannot.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def start_with(self, version: ServedVersion) -> None:
        """Exactly `version`, whatever other versions were here."""
        for number in self.numbers(version) - {version.number}:
            self.remove(version, number)
        self.add(version)
        self.list_versions(version)
        self.choose(version)

    def add(self, version: ServedVersion) -> None:
        """Its folders, which Triton passes over until they are listed."""
        for model, program in version.programs.items():
            folder = self.folder / model / str(version.number)
            with self._written():
                _write(folder / "model.py", program)
                if not _names(folder, version.manifest):
                    write_manifest(folder, version.manifest)
                # Triton loads a version whose folder changed again, which Python's cache would do: nothing
                # can be written into a file.
                (folder / "__pycache__").touch()

    def list_versions(self, *versions: ServedVersion) -> None:
        """The versions of every stage that its next load leaves loaded."""
        for model in versions[-1].stages:
            config = _copied(versions[-1].configs[model])
            config.version_policy.specific.versions.extend(version.number for version in versions)
            self._configure(model, config)

    def choose(self, version: ServedVersion) -> None:
        """The version whose stages the ensembles call once they are loaded."""
        for model in version.ensembles:
            config = _copied(version.configs[model])
            for step in config.ensemble_scheduling.step:
                step.model_version = version.number
            with self._written():
                (self.folder / model / _BUILT).mkdir(parents=True, exist_ok=True)
            self._configure(model, config)

    def numbers(self, version: ServedVersion) -> set[int]:
        """The versions that have a folder in a stage of `version`."""
        return {
            int(path.name)
            for model in version.stages
            for path in (self.folder / model).glob("*")
            if path.name.isdigit()
        }

    def remove(self, version: ServedVersion, number: int) -> None:
        """The folders that version `number` has in the stages of `version`, once it is unloaded."""
        for model in version.stages:
            shutil.rmtree(self.folder / model / str(number), ignore_errors=True)

    def _configure(self, model: str, config: Any) -> None:
        with self._written():  # protobuf's text form leaves zeros out, but Triton must not guess this one
            _write(
                self.folder / model / "config.pbtxt",
                f"{text_format.MessageToString(config)}max_batch_size: 0\n",
            )

    @contextlib.contextmanager
    def _written(self) -> Iterator[None]:
        try:
            yield
        except OSError as error:
            raise Unavailable(f"{self.folder}: {storage_problem(error)}") from error


def _write(path: Path, text: str) -> None:
    if not path.is_file() or path.read_bytes() != text.encode():
        write_whole(path, text.encode())


def _names(folder: Path, manifest: BuildManifest) -> bool:
    try:
        return read_manifest(folder) == manifest
    except EngineMismatch:
        return False


def _copied(config: Any) -> Any:
    copy: Any = model_config_pb2.ModelConfig()
    copy.CopyFrom(config)
    return copy
