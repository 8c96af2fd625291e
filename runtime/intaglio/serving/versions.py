"""The builds that one server's Triton has loaded, as version folders of a model repository of its own.

    <workspace>/model_repository/diffuse/config.pbtxt      the build's, with the versions to load
    <workspace>/model_repository/diffuse/2/manifest.json   which build version 2 is
    <workspace>/model_repository/sdxl/config.pbtxt         names the version of every stage
A public model calls stages of one version only, so a request uses one build from its first step to its last.
The repository belongs to one server: two servers of one deployment may serve different versions.
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
from intaglio.contract.models import ADMITTING_VERSION, DIFFUSE, MODELS, STANDALONE
from intaglio.errors import EngineMismatch, Unavailable
from intaglio.triton_models.served_build import BUILD_KEY_PARAMETER
from intaglio.whole_files import storage_problem, write_whole

__all__ = ["REPOSITORY", "ServedRepository", "ServedVersion", "read_version"]

REPOSITORY: Final = "model_repository"
_BUILT: Final = "1"
"""The one version folder of a build's own repository."""
_REFUSING: Final = "from intaglio.triton_models.stopping import StoppingModel as TritonPythonModel\n"
"""model.py of a public model while the server stops."""
_CALLERS: Final = frozenset(model.name for model in MODELS if model.public and model not in STANDALONE)
"""The models that call stages. Those that call none come and go with the stages."""


@dataclass(frozen=True, slots=True)
class ServedVersion:
    """A build under the number that this server gave it. It holds what a restart needs, whatever is built
    meanwhile.
    """

    number: int
    manifest: BuildManifest
    configs: Mapping[str, Any]
    """config.pbtxt by model, without what differs from build to build."""
    programs: Mapping[str, str]
    """model.py by Python model."""
    hold: BuildHold

    @property
    def stages(self) -> tuple[str, ...]:
        """The models that public models call, and those of `STANDALONE`. During a change both versions are
        loaded; a client of `annotate` or `identity` gets the higher one. `diffuse` is the first, since it is
        the likeliest to fail.
        """
        names = (model for model in self.configs if model not in _CALLERS)
        return tuple(sorted(names, key=lambda model: (model != DIFFUSE.name, model)))

    @property
    def public(self) -> tuple[str, ...]:
        """The models that clients call and that call stages, of one version only."""
        return tuple(model for model in self.configs if model in _CALLERS)

    @property
    def open_models(self) -> tuple[str, ...]:
        """All models that are there for clients; first those that draw."""
        standalone = {model.name for model in STANDALONE}
        return (*self.public, *(model for model in self.configs if model in standalone))

    @property
    def callers(self) -> tuple[str, ...]:
        """The public models that are programs. A version of them calls the stages of the same version."""
        return tuple(model for model in self.public if model in self.programs)

    @property
    def shown(self) -> str:
        """For people."""
        return f"version {self.number} (build {self.manifest.key[:12]})"


def read_version(folder: Path, manifest: BuildManifest, *, number: int, hold: BuildHold) -> ServedVersion:
    """The build in `folder`, whose manifest is `manifest`.

    Raises:
        EngineMismatch: its model repository is missing, damaged or of another build.
    """
    configs: dict[str, Any] = {}
    programs: dict[str, str] = {}
    try:
        for path in sorted((folder / REPOSITORY).glob("*/config.pbtxt")):
            config: Any = text_format.Parse(path.read_text(encoding="utf-8"), model_config_pb2.ModelConfig())
            program = path.parent / _BUILT / "model.py"
            if config.backend == "python":
                programs[config.name] = program.read_text(encoding="utf-8")
            key = config.parameters[BUILD_KEY_PARAMETER].string_value
            if key and key != manifest.key:
                reason = f"written for build {key[:12]}, {folder} holds {manifest.key[:12]}"
                raise EngineMismatch(f"the model repository was {reason}", command=manifest.rebuild)
            # Triton loads a model's other versions again when anything but their list changes.
            del config.parameters[BUILD_KEY_PARAMETER]
            configs[config.name] = config
    except (OSError, ValueError, text_format.ParseError) as error:
        raise EngineMismatch(f"{folder / REPOSITORY}: {error}", command=manifest.rebuild) from error
    return ServedVersion(number, manifest, configs, programs, hold)


class ServedRepository:
    """What Triton reads. The lists of versions and the choice of public models change; a version folder never
    does.

    A file that is already right is not written again, so a restart needs no room on the disk. Methods that
    write raise Unavailable where they cannot.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def start_with(self, version: ServedVersion) -> None:
        """Make the repository hold exactly `version`."""
        for number in self.numbers(version) - {version.number}:
            self.remove(version, number)
        self.add(version)
        self.list_versions(version)
        self.choose(version)

    def add(self, version: ServedVersion) -> None:
        """Write the folders of `version`. Triton ignores them until the version is listed."""
        for model, program in version.programs.items():
            folder = self.folder / model / str(version.number)
            with self._written():
                _write(folder / "model.py", program)
                if not _names(folder, version.manifest):
                    write_manifest(folder, version.manifest)
                # Triton loads a version again when its folder changes, and Python's cache would change it. A
                # file of that name keeps Python from making the folder.
                (folder / "__pycache__").touch()

    def list_versions(self, *versions: ServedVersion) -> None:
        """Set the versions of every stage that are loaded after its next load."""
        latest = versions[-1]
        for model in latest.stages:
            config = _copied(latest.configs[model])
            config.version_policy.specific.versions.extend(version.number for version in versions)
            self._configure(model, config)

    def choose(self, version: ServedVersion) -> None:
        """Set the version that public models have after their next load."""
        for model in version.public:
            config = _copied(version.configs[model])
            if model in version.programs:
                config.version_policy.specific.versions.append(version.number)
            else:  # an ensemble has no program: it names the version of each stage
                with self._written():
                    (self.folder / model / ADMITTING_VERSION).mkdir(parents=True, exist_ok=True)
                for step in config.ensemble_scheduling.step:
                    step.model_version = version.number
            self._configure(model, config)

    def refuse(self, model: str, version: ServedVersion, *, number: int) -> None:
        """Let `model` of `version` refuse all requests once it is loaded, as version `number`."""
        config = _copied(version.configs[model])
        for name in ("platform", "ensemble_scheduling", "instance_group"):
            config.ClearField(name)
        config.backend = "python"
        config.instance_group.add(kind=model_config_pb2.ModelInstanceGroup.KIND_CPU, count=1)
        config.version_policy.specific.versions.append(number)
        with self._written():
            _write(self.folder / model / str(number) / "model.py", _REFUSING)
        self._configure(model, config)

    def numbers(self, version: ServedVersion) -> set[int]:
        """The versions that have a folder in a Python model of `version`."""
        found: set[int] = set()
        for model in version.programs:
            names = (path.name for path in (self.folder / model).glob("*"))
            found.update(int(name) for name in names if name.isdigit())
        return found

    def remove(self, version: ServedVersion, number: int) -> None:
        """Remove the folders of version `number` in the Python models of `version`; it must be unloaded."""
        for model in version.programs:
            shutil.rmtree(self.folder / model / str(number), ignore_errors=True)

    def _configure(self, model: str, config: Any) -> None:
        # Protobuf's text form leaves zeros out, but Triton must not guess this one.
        text = f"{text_format.MessageToString(config)}max_batch_size: 0\n"
        with self._written():
            _write(self.folder / model / "config.pbtxt", text)

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
