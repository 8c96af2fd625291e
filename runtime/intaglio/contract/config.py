"""One deployment: `configs/NAME.yaml`, strict and frozen. Paths are relative to the YAML file.

base          candidates in order of preference: {folder: ..}, {file: x.safetensors}, {hub: owner/name}, or {architecture: ..}
              for weights drawn from a seed (speed and memory at full size where the real ones cannot be had);
              one needs no list
vae           optional source that replaces the base's VAE
controlnets   id -> {path | hub, type}
loras         id -> {path, weight}: what may be fused;  fuse: id -> weight, or null for the LoRA's own
registry      YAML file of more LoRAs (intaglio.contract.lora_registry);  swap: let every request choose its own set of them
profiles      what is compiled: sizes, batch, guidance on/off, text chunks
precision, runtime, target, verify_tolerance, execution, limits, defaults, memory_limit_gib, poses, build,
server
"""

from __future__ import annotations

import hashlib
import json
import os
from pathlib import Path
from typing import Annotated, Any, Literal, Self

from pydantic import Field, PositiveInt, StringConstraints, ValidationInfo, field_validator, model_validator

from intaglio.contract.identifiers import RegistryId
from intaglio.contract.lora_registry import LoraWeight, load_registry
from intaglio.contract.models import SDXL
from intaglio.contract.tensors import Precision
from intaglio.contract.yaml_files import Strict, read_yaml, validated
from intaglio.errors import ConfigError

__all__ = [
    "ControlNetSource",
    "Defaults",
    "Deployment",
    "Execution",
    "Limits",
    "LoraSource",
    "Profiles",
    "RegistryId",
    "Runtime",
    "Server",
    "Source",
    "Swap",
    "Target",
    "load_deployment",
]

Runtime = Literal["auto", "onnxruntime", "tensorrt-rtx", "tensorrt"]
Swap = Literal["off", "transformer", "all"]
Target = Literal["auto", "cpu", "sm75", "sm80", "sm86", "sm89", "sm90", "sm100", "sm120"]
Scheduler = Literal["euler", "euler_a", "ddim", "dpmpp_2m_karras", "unipc", "lcm"]
_MOST_STEPS = int(SDXL.input("steps").maximum or 0)
_MOST_IMAGES = int(SDXL.input("num_images").maximum or 0)
_MOST_GUIDANCE = float(SDXL.input("guidance_scale").maximum or 0)


def _resolved(path: Path, info: ValidationInfo) -> Path:
    folder = (info.context or {}).get("folder")
    path = path.expanduser()
    return path if folder is None or path.is_absolute() else (Path(folder) / path).resolve()


class Source(Strict):
    """Where weights come from: a diffusers folder, a single .safetensors file, a hub id or a seed; exactly
    one of them.
    """

    folder: Path | None = None
    file: Path | None = None
    hub: Annotated[str, StringConstraints(pattern=r"^[\w.-]+/[\w.-]+$")] | None = None
    revision: str | None = None
    architecture: Literal["sdxl-base-1.0", "sdxl-reduced"] | None = None
    """Weights are drawn from `seed`; `sdxl-reduced` has the same blocks, few and narrow."""
    seed: Annotated[int, Field(ge=0, lt=2**32)] | None = None

    _paths = field_validator("folder", "file")(
        lambda path, info: None if path is None else _resolved(path, info)
    )

    @model_validator(mode="after")
    def _one_of(self) -> Self:
        if sum(value is not None for value in (self.folder, self.file, self.hub, self.architecture)) != 1:
            raise ValueError("give exactly one of folder, file, hub, architecture")
        if (self.seed is None) != (self.architecture is None):
            raise ValueError("architecture and seed go together")
        if self.revision is not None and self.hub is None:
            raise ValueError("revision goes with hub only")
        if self.file is not None and self.file.suffix != ".safetensors":
            raise ValueError("file must be .safetensors (pickled checkpoints run code when loaded)")
        return self

    def __str__(self) -> str:
        if self.architecture is not None:
            return f"{self.architecture} with weights of seed {self.seed}"
        return str(
            self.folder or self.file or (f"hub:{self.hub}" + (f"@{self.revision}" if self.revision else ""))
        )


class ControlNetSource(Source):
    """A ControlNet and what its control image shows (`pose`, `canny`, `depth`, ...)."""

    type: RegistryId


class LoraSource(Strict):
    """A LoRA file and the weight it is fused with unless `fuse` says another."""

    path: Path
    weight: LoraWeight = 1.0

    _path = field_validator("path")(_resolved)


class Profiles(Strict):
    """What the engines are compiled for."""

    sizes: tuple[tuple[PositiveInt, PositiveInt], ...] = Field(min_length=1)
    """(width, height) pixels; the first is the default size."""
    batch: int = Field(default=1, ge=1, le=_MOST_IMAGES)
    """Most images in one pass; a request's images go in passes of `batch`, the rest singly."""
    guidance: tuple[Literal["on", "off"], ...] = Field(default=("on", "off"), min_length=1)
    text_chunks: int = Field(default=3, ge=1, le=8)
    """Most chunks of 75 words a prompt may take."""
    decoder_pixels: int | None = Field(default=None, ge=1024)
    """Most pixels of an image that the VAE decodes at once; larger sizes are decoded in tiles, whose colours
    differ (`intaglio.sampling.tiles`). Absent: all are decoded whole, which takes 1.26 GiB of activations for
    1024x1024.
    """

    @field_validator("sizes")
    @classmethod
    def _multiples_of_eight(cls, sizes: tuple[tuple[int, int], ...]) -> tuple[tuple[int, int], ...]:
        for width, height in sizes:
            if width % 8 or height % 8:
                raise ValueError(f"{width}x{height}: width and height must be multiples of 8")
        if len(set(sizes)) != len(sizes):
            raise ValueError("a size is listed twice")
        return sizes

    @property
    def batches(self) -> tuple[int, ...]:
        """Images a pass may have: 1 and `batch`."""
        return tuple(sorted({1, self.batch}))

    @property
    def guidance_modes(self) -> tuple[bool, ...]:
        """`guidance` as booleans, on first."""
        return tuple(sorted((mode == "on" for mode in set(self.guidance)), reverse=True))


class Limits(Strict):
    """What one request may ask for."""

    steps: int = Field(default=_MOST_STEPS, ge=1, le=_MOST_STEPS)
    images: int = Field(default=4, ge=1, le=_MOST_IMAGES)
    cost: PositiveInt = 4 * 1024 * 1024 * 60
    """Pixels x steps x images x (1 + controls)."""
    prompt_bytes: PositiveInt = 4096
    controls: int = Field(default=4, ge=0, le=16)
    loras: int = Field(default=4, ge=0, le=16)
    """LoRAs of one request, a preset's members each."""
    input_images: int = Field(default=8, ge=0, le=64)
    input_bytes: PositiveInt = 32 * 1024 * 1024
    """Of one input image, encoded."""
    input_pixels: PositiveInt = 4096 * 4096
    """Of one input image, checked in its header before it is decoded."""


class Defaults(Strict):
    """Values of a request's absent inputs: a few-step LoRA wants other ones than plain SDXL."""

    steps: int = Field(default=30, ge=1, le=_MOST_STEPS)
    guidance_scale: float = Field(default=5.0, ge=0, le=_MOST_GUIDANCE, allow_inf_nan=False)
    scheduler: Scheduler = "euler"


class Execution(Strict):
    """How `diffuse` runs."""

    threads: int = Field(default=0, ge=0, le=256)
    """CPU threads of ONNX Runtime and of putting LoRAs on; 0: as many as the process may use."""
    cuda_graph: bool = False
    embedding_cache: int = Field(default=64, ge=0, le=100_000)
    """Prompts whose embeddings are kept."""
    lora_staging_mib: int = Field(default=4608, ge=0)
    """Memory that new weights may take while LoRAs are put on, where the networks run: with less they go in
    several turns (what TensorRT has joined goes at once all the same), with 0 they are computed on the host.
    """
    lora_overtakes: int = Field(default=8, ge=0, le=1000)
    """How many requests for the resident LoRAs may overtake one that waits for others: fewer swaps against a
    longer longest wait.
    """


class Server(Strict):
    """Where Triton listens and how much it queues. A port of 0 is any free one, chosen when the server
    starts.
    """

    host: str = "127.0.0.1"
    http_port: int = Field(default=8000, ge=0, le=65535)
    grpc_port: int = Field(default=8001, ge=0, le=65535)
    metrics_port: int = Field(default=8002, ge=0, le=65535)
    queue_size: PositiveInt = 32
    """Requests waiting before new ones are answered UNAVAILABLE."""
    workers: int = Field(default=1, ge=1, le=64)
    """Instances of preprocess and of postprocess."""

    @model_validator(mode="after")
    def _different_ports(self) -> Self:
        fixed = [port for port in (self.http_port, self.grpc_port, self.metrics_port) if port]
        if len(set(fixed)) != len(fixed):
            raise ValueError("http_port, grpc_port and metrics_port must differ")
        return self


class Deployment(Strict):
    """A whole deployment; `load_deployment` reads one from its YAML file."""

    name: RegistryId
    """The YAML file's name."""
    folder: Path
    """The YAML file's folder."""
    base: tuple[Source, ...] = Field(min_length=1)
    vae: Source | None = None
    controlnets: dict[RegistryId, ControlNetSource] = Field(default_factory=dict)
    loras: dict[RegistryId, LoraSource] = Field(default_factory=dict)
    fuse: dict[RegistryId, LoraWeight | None] = Field(default_factory=dict)
    registry: Path | None = None
    """Its LoRAs are added to `loras`."""
    swap: Swap = "off"
    """Which layers a running server may change: `transformer` (attention and feed-forward, in UNet and text
    encoders) or `all` (the UNet's convolutions too: LoCon).
    """
    profiles: Profiles
    precision: Precision = "fp16"
    runtime: Runtime = "auto"
    target: Target = "auto"
    verify_tolerance: float = Field(default=0.02, gt=0, le=1)
    """Largest relative error (norm of the difference over norm) of an engine against PyTorch."""
    execution: Execution = Execution()
    limits: Limits = Limits()
    defaults: Defaults = Defaults()
    memory_limit_gib: float | None = Field(default=None, gt=0, allow_inf_nan=False)
    """Most memory the server may take where it computes; `serve` refuses a build that would take more."""
    poses: Path | None = None
    """Folder of NAME.json, OpenPose keypoints."""
    build: Path = Field(default=Path("../build"), validate_default=True)
    """Folder that holds every build; this one goes to `build_folder`."""
    server: Server = Server()

    _one_base = field_validator("base", mode="before")(
        lambda value: [value] if isinstance(value, dict) else value
    )
    _poses = field_validator("poses", "registry")(
        lambda path, info: None if path is None else _resolved(path, info)
    )
    _build = field_validator("build", mode="after")(_resolved)

    @model_validator(mode="after")
    def _consistent(self) -> Self:
        if unknown := sorted(set(self.fuse) - set(self.loras)):
            raise ValueError(f"fuse names LoRAs that `loras` does not list: {', '.join(unknown)}")
        if self.swap != "off" and self.fuse:
            raise ValueError("fuse changes the weights that swap must find pristine: use one of them")
        if self.swap != "off" and self.registry is None:
            raise ValueError("swap serves the LoRAs of a registry: give registry: loras.yaml")
        if self.defaults.steps > self.limits.steps:
            raise ValueError(
                f"defaults.steps {self.defaults.steps} is above limits.steps {self.limits.steps}"
            )
        if self.profiles.batch > self.limits.images:
            raise ValueError(
                f"profiles.batch {self.profiles.batch} is above limits.images {self.limits.images}: it would never be used"
            )
        if self.runtime.startswith("tensorrt") and self.target == "cpu":
            raise ValueError("target cpu goes with runtime onnxruntime only")
        if self.runtime == "onnxruntime" and self.target not in ("auto", "cpu"):
            raise ValueError(
                f"runtime onnxruntime runs on the CPU; target {self.target} needs tensorrt-rtx or tensorrt"
            )
        if (self.defaults.guidance_scale > 1) not in self.profiles.guidance_modes:
            raise ValueError(
                f"defaults.guidance_scale {self.defaults.guidance_scale:g} needs a guidance mode that profiles.guidance leaves out"
            )
        return self

    @property
    def build_folder(self) -> Path:
        """Folder of this deployment's build: manifest.json, engines, model_repository."""
        return self.build / self.name

    @property
    def fused(self) -> dict[str, float]:
        """Weight of every LoRA to fuse, in the order of the file."""
        return {
            lora: self.loras[lora].weight if weight is None else weight for lora, weight in self.fuse.items()
        }

    @property
    def digest(self) -> str:
        """sha256 of every value that a build holds; the same on every machine (paths as seen from the YAML
        file).
        """
        places = {
            "host",
            "http_port",
            "grpc_port",
            "metrics_port",
        }  # queue_size and workers are in the build's model repository
        excluded: dict[str, Any] = {"folder": True, "build": True, "memory_limit_gib": True, "server": places}
        if (
            self.swap != "off"
        ):  # which LoRAs there are is no part of such a build: they come and go while it is served
            excluded["loras"] = True
        values = self.model_dump(exclude=excluded)
        text = json.dumps(
            values,
            sort_keys=True,
            separators=(",", ":"),
            default=lambda path: os.path.relpath(path, self.folder),
        )
        return hashlib.sha256(text.encode()).hexdigest()


def load_deployment(path: Path) -> Deployment:
    """Read and check `path`.

    Raises:
        ConfigError: a missing file, bad YAML, or a field that is unknown, missing or out of range.
    """
    path = Path(path)
    data = read_yaml(path, hint="; a deployment is a YAML file such as configs/miniature.yaml")
    if reserved := {"name", "folder"} & set(data):
        raise ConfigError(
            f"{path}: {', '.join(sorted(reserved))}: comes from the file's own path; take the field out"
        )
    return validated(
        Deployment, {**_with_registry(data, path), "name": path.stem, "folder": path.parent.resolve()}, path
    )


def _with_registry(data: dict[str, Any], path: Path) -> dict[str, Any]:
    """`data` with the registry's LoRAs among `loras`, where they can be fused; one that the hub holds can
    only be swapped in.
    """
    named, own = data.get("registry"), data.get("loras") or {}
    if not isinstance(named, str) or not isinstance(own, dict):
        return data
    entries = load_registry(path.parent / named).loras
    if both := sorted(set(entries) & set(own)):
        raise ConfigError(f"{path}: loras.{both[0]}: {named} has a LoRA of that id too")
    found = {
        lora: {"path": str(entry.file), "weight": entry.weight}
        for lora, entry in entries.items()
        if entry.file is not None
    }
    return {**data, "loras": {**own, **found}}
