"""`manifest.json`: what was built, and all that the serving processes need to know.

It is written atomically. Its files are checked, and errors give the reason and the command that rebuilds.
Paths are relative to the manifest's folder.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal

from pydantic import Field, ValidationError

from intaglio.builds.file_checks import FileDigest
from intaglio.contract.architecture import Architecture
from intaglio.contract.config import Defaults, Execution, Limits, Profiles, Swap
from intaglio.contract.detectors import DetectorProcess, DetectorSource
from intaglio.contract.identity import Identity
from intaglio.contract.lora_registry import ResolvedLora
from intaglio.contract.methods import MethodName
from intaglio.contract.models import PaletteName
from intaglio.contract.provenance import Provenance
from intaglio.contract.sdxl import controlnet_name, controlnet_networks
from intaglio.contract.tensors import Precision
from intaglio.contract.yaml_files import RegistryId, Sha256, Strict
from intaglio.errors import EngineMismatch
from intaglio.stored_versions import version_problem
from intaglio.validation_errors import problems_text
from intaglio.whole_files import write_whole

__all__ = [
    "MANIFEST_NAME",
    "RUNTIME_CACHE_NAME",
    "BuildManifest",
    "NetworkFile",
    "UnionPlace",
    "content_key",
    "read_manifest",
    "write_json",
    "write_manifest",
]

MANIFEST_NAME = "manifest.json"
RUNTIME_CACHE_NAME = "runtime.cache"
"""Lies beside an engine: what its library compiled for this card at the first run. It may be missing and
identifies nothing.
"""


class NetworkFile(Strict):
    """One network's engine."""

    path: str
    """The file the engine opens (an ONNX model or a TensorRT plan), relative to the manifest."""
    key: Sha256
    files: dict[str, FileDigest]
    """Every file of the engine: `path`, external weights, and `pristine`."""
    pristine: str | None = None
    """File of the weights that LoRAs may change, under the engine's names for them; None where this network
    has none.
    """
    verification: str = "not verified"
    """How the engine compared with PyTorch, or why it was not compared."""
    activation_bytes: int | None = Field(default=None, ge=0)
    """Activation memory of the largest profile, as the engine reports it; None where it was never opened on a
    card.
    """

    @property
    def size(self) -> int:
        """Bytes of the engine itself, which is what its weights take in memory."""
        return sum(digest.size for file, digest in self.files.items() if file != self.pristine)


class UnionPlace(Strict):
    """Where a ControlNet-Union serves a control."""

    network: str
    """The union's network."""
    mode: int
    """Index of the control's type in the union."""


class BuildManifest(Strict):
    """A deployment as built. The serving processes read this and the files that it names."""

    schema_version: Literal[1] = 1
    key: Sha256
    """Content key of the whole build; `model_repository` holds the same key."""
    config_digest: Sha256
    """`Deployment.digest` of the configuration it was built from."""
    rebuild: str
    """The command that builds it again."""
    base: str
    """The first candidate that was available."""
    architecture: Architecture
    scheduler: dict[str, Any]
    scaling_factor: float
    latents_mean: tuple[float, ...] | None = None
    """Of the VAE's latents, one number a channel; None where its configuration has none."""
    latents_std: tuple[float, ...] | None = None
    force_zeros_for_empty_prompt: bool
    precision: Precision
    runtime: Literal["onnxruntime", "tensorrt-rtx", "tensorrt"]
    target: str
    """`cpu` or the compute capability, `sm89`."""
    versions: dict[str, str]
    stages: dict[str, Sha256] = Field(default_factory=dict)
    """Key of the result of every stage in the store beside this build. It keeps them there, and identifies
    nothing.
    """
    profiles: Profiles
    limits: Limits
    defaults: Defaults
    method: MethodName | None = None
    """Few-step method of the base or of a fused LoRA."""
    provenance: Provenance = Provenance()
    execution: Execution
    networks: dict[str, NetworkFile]
    """By the names of `intaglio.contract.sdxl`: text_encoder, unet, controlnet.<id>, ..."""
    controlnets: dict[RegistryId, RegistryId]
    """Control id -> type of its control image."""
    unions: dict[RegistryId, UnionPlace] = Field(default_factory=dict)
    """Control id -> where a ControlNet-Union serves it. All other controls have a ControlNet of their own."""
    palettes: dict[RegistryId, PaletteName] = Field(default_factory=dict)
    """Control id -> the colours that its ControlNet has learnt, where the deployment names them."""
    swap: Swap = "off"
    """Whether requests choose their LoRAs from `loras/registry.json` beside the manifest."""
    loras: tuple[ResolvedLora, ...]
    """Fused into the weights."""
    lora_hashes: dict[RegistryId, str] = Field(default_factory=dict)
    """The hashes by which other programs know the fused LoRAs (`intaglio.loras.hashes`)."""
    tokenizers: tuple[str, str]
    """Folders of both tokenizers."""
    poses: str | None
    """Folder of the pose library."""
    poses_source: str | None = None
    """The deployment's own folder of poses, an absolute path. Where this machine has it, poses that came
    after the build are served from it.
    """
    detectors: dict[RegistryId, DetectorSource] = Field(default_factory=dict)
    """What turns photographs into control maps. A file that was missing at the build is not in `files`."""
    detector_process: DetectorProcess = DetectorProcess()
    identity: Identity | None = None
    """How faces are read. The folder of its characters is the deployment's own, an absolute path: no build
    holds an embedding.
    """
    files: dict[str, FileDigest]
    """Tokenizer, pose and detector files, and those that read faces."""

    @property
    def control_networks(self) -> tuple[str, ...]:
        """The networks of all ControlNets, each once."""
        return tuple(dict.fromkeys(map(self.control_network, self.controlnets)))

    def control_network(self, control: str) -> str:
        """Name of the network that computes the control with the id `control`."""
        return self.unions[control].network if control in self.unions else controlnet_name(control)

    @property
    def swaps(self) -> bool:
        """Whether requests choose their LoRAs."""
        return self.swap != "off"

    @property
    def resident_controlnets(self) -> int:
        """How many ControlNets a server has open at the same time."""
        asked, built = self.execution.resident_controlnets, len(self.control_networks)
        return built if asked == "auto" else min(asked, built)

    def controlnet_bytes(self, network: str) -> int:
        """Size of the engines of the ControlNet `network`, which is what it takes in memory."""
        networks = map(self.networks.get, controlnet_networks(network))
        return sum(network.size for network in networks if network is not None)

    @property
    def listed(self) -> dict[str, FileDigest]:
        """Every file that the manifest names: those of all networks, and `files`."""
        found: dict[str, FileDigest] = {}
        for network in self.networks.values():
            found |= network.files
        return found | self.files


def content_key(inputs: Mapping[str, Any]) -> str:
    """sha256 of `inputs` as canonical JSON; NaN and unknown types are errors."""
    text = json.dumps(inputs, sort_keys=True, separators=(",", ":"), allow_nan=False)
    return hashlib.sha256(text.encode()).hexdigest()


def write_json(path: Path, value: Any) -> None:
    """Write `value` to `path` atomically."""
    write_whole(path, (json.dumps(value, indent=1, sort_keys=True, allow_nan=False) + "\n").encode())


def write_manifest(folder: Path, manifest: BuildManifest) -> None:
    """Write `folder/manifest.json` atomically."""
    write_json(folder / MANIFEST_NAME, manifest.model_dump(mode="json"))


def read_manifest(folder: Path, *, command: str = "intaglio build configs/NAME.yaml") -> BuildManifest:
    """The build in `folder`; an error recommends `command` where no manifest names one.

    Raises:
        EngineMismatch: no manifest, or one that this version cannot read.
    """
    path = folder / MANIFEST_NAME
    try:
        data = path.read_bytes()
    except OSError as error:
        raise EngineMismatch(f"{path}: {error.strerror or error}", command=command) from error
    try:
        return BuildManifest.model_validate_json(data)
    except ValidationError as error:
        problem = version_problem(data) or f"{problems_text(error, BuildManifest)} (made by another version?)"
        reason = f"{path}: {problem}"
        raise EngineMismatch(reason, command=_rebuild_of(data, command)) from error


def _rebuild_of(data: bytes, otherwise: str) -> str:
    try:
        value = json.loads(data)
    except ValueError:
        return otherwise
    command = value.get("rebuild") if isinstance(value, dict) else None
    return command if isinstance(command, str) else otherwise
