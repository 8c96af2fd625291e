"""One deployment, `configs/NAME.yaml`: strict and frozen. Paths are relative to the YAML file.

base          candidates in order of preference: {folder: ..}, {file: x.safetensors}, {hub: owner/name}, or
              {architecture: .., seed: ..} for drawn weights, which measure speed and memory at full size
              where the real ones are not available; a single candidate needs no list
vae           optional source that replaces the base's VAE
controlnets   id -> source and type, or source and the controls of a ControlNet-Union
loras         id -> {path, weight}: LoRAs that may be fused
fuse          id -> weight: LoRAs that are fused; null takes the LoRA's own weight
registry      YAML file of more LoRAs (intaglio.contract.lora_registry)
swap          lets every request choose its own set of the registry's LoRAs
profiles      what the engines are compiled for: sizes, batch, guidance on or off, text chunks

The classes below describe precision, runtime, target, verify_tolerance, execution, limits, defaults,
memory_limit_gib, presets, poses, detectors, detector_process, build and server.
"""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any, Final, Literal, Self

from pydantic import Field, PositiveInt, ValidationInfo, field_validator, model_validator

from intaglio.contract.deployment_files import with_default_preset, with_registry
from intaglio.contract.detectors import AUTO, NO_DETECTOR, DetectorProcess, DetectorSource
from intaglio.contract.identity import Identity
from intaglio.contract.lora_registry import LoraWeight
from intaglio.contract.methods import METHODS, MethodName
from intaglio.contract.models import SDXL, Scheduler
from intaglio.contract.presets import check_presets, check_quality
from intaglio.contract.provenance import Provenance
from intaglio.contract.server import Server
from intaglio.contract.sources import (
    ControlNetSource,
    LoraSource,
    ServedControl,
    Source,
    served_controls,
)
from intaglio.contract.tensors import Precision
from intaglio.contract.yaml_files import RegistryId, Strict, read_yaml, resolved_path, validated
from intaglio.errors import ConfigError
from intaglio.validation_errors import Derived

__all__ = [
    "Defaults",
    "Deployment",
    "Execution",
    "Limits",
    "PrecisionChoice",
    "Profiles",
    "Runtime",
    "RuntimeName",
    "Swap",
    "Target",
    "load_deployment",
]

Runtime = Literal["auto", "onnxruntime", "tensorrt-rtx", "tensorrt"]
Swap = Literal["off", "transformer", "all"]
RuntimeName = Literal["onnxruntime", "tensorrt-rtx", "tensorrt"]
PrecisionChoice = Precision | Literal["auto"]
Target = Literal["auto", "cpu", "sm75", "sm80", "sm86", "sm89", "sm90", "sm100", "sm120"]
_TOLERANCES: Final[Mapping[Precision, float]] = {"fp16": 0.012, "fp32": 0.001}
"""Largest relative errors of a right engine, where the deployment names none.

Measured on an H200 against float64 (docs/performance.md). fp16: of the miniature's right networks the worst
is 0.0055 off (the UNet with guidance, which multiplies the difference of two rows), and of the wrong ones the
best was 0.037 off. 0.012 is twice the first and a third of the second. fp32: ONNX Runtime is at most 5e-5 off
on a CPU, and TensorRT-RTX without TF32 2.4e-5, so 0.001 leaves room for larger networks. With TF32 right
networks are up to 0.0024 off: builds and servers of fp32 turn it off (`turn_tf32_off`).
"""
_MOST_STEPS = int(SDXL.input("steps").maximum or 0)
_MOST_IMAGES = int(SDXL.input("num_images").maximum or 0)
_MOST_GUIDANCE = float(SDXL.input("guidance_scale").maximum or 0)


class Profiles(Strict):
    """What the engines are compiled for."""

    sizes: tuple[tuple[PositiveInt, PositiveInt], ...] = Field(min_length=1)
    """Sizes of the images: [width, height] in pixels, multiples of 8. The first is the default."""
    batch: int = Field(default=1, ge=1, le=_MOST_IMAGES)
    """Most images of one pass. A request's images are made in passes of `batch`, and the rest one by one."""
    guidance: tuple[Literal["on", "off"], ...] = Field(default=("on", "off"), min_length=1)
    """Whether requests may use guidance, may do without it, or both. Steps without guidance take 0.6 of the
    time.
    """
    text_chunks: int = Field(default=3, ge=1, le=8)
    """Most chunks of 75 tokens that a prompt may have."""
    ranges: tuple[Literal["sizes", "guidance", "text_chunks"], ...] = ()
    """Fields whose values share one TensorRT profile with ranges, instead of a profile for each value. Such
    an engine compiles faster by the number of profiles that it saves. At SDXL's size a range of sizes makes a
    step slower (48 instead of 34.7 ms on an H200); ranges of the other two have not been timed there.
    """
    decoder_pixels: int | None = Field(default=None, ge=1024)
    """Most pixels that the VAE decodes in one pass. Larger images are decoded in tiles, whose colours differ
    slightly. Absent: every image is decoded whole, which takes 1.26 GiB of activations at
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
        return tuple(mode == "on" for mode in ("on", "off") if mode in self.guidance)


class Limits(Strict):
    """What one request may ask for."""

    steps: int = Field(default=_MOST_STEPS, ge=1, le=_MOST_STEPS)
    """Most solver steps."""
    images: int = Field(default=4, ge=1, le=_MOST_IMAGES)
    """Most images of one request."""
    cost: PositiveInt = 4 * 1024 * 1024 * 60
    """Most pixels x steps x images x (1 + controls): what one request may cost."""
    prompt_bytes: PositiveInt = 4096
    """Most bytes of a prompt, and of a negative prompt."""
    controls: int = Field(default=4, ge=0, le=16)
    """Most controls of one request."""
    loras: int = Field(default=4, ge=0, le=16)
    """Most LoRAs of one request; each member of a preset counts."""
    input_images: int = Field(default=8, ge=0, le=64)
    """Most images that one request may send."""
    input_bytes: PositiveInt = 32 * 1024 * 1024
    """Most bytes of an image that is sent, as encoded."""
    input_pixels: PositiveInt = 4096 * 4096
    """Most pixels of an image that is sent. They are read from its header before it is decoded."""


class Defaults(Strict):
    """Values of inputs that a request leaves out: a few-step LoRA wants others than plain SDXL."""

    steps: int = Field(default=30, ge=1, le=_MOST_STEPS)
    """Solver steps."""
    guidance_scale: float = Field(default=5.0, ge=0, le=_MOST_GUIDANCE, allow_inf_nan=False)
    """How closely an image follows the prompt; 1 and below turn guidance off."""
    scheduler: Scheduler = "euler"
    """The solver."""
    preset: RegistryId | None = None
    """Quality preset of `presets` that a request gets that names none. A build holds its values as they were
    then.
    """
    preset_values: Annotated[dict[str, Any], Derived()] = Field(default_factory=dict)
    """The values of `preset` by input."""


class Execution(Strict):
    """How `diffuse` runs."""

    threads: int = Field(default=0, ge=0, le=256)
    """CPU threads of ONNX Runtime and of applying LoRAs; 0: as many as the process may use."""
    gpu: int = Field(default=0, ge=0, le=63)
    """CUDA's index of the card that builds, verifies and runs the networks. CUDA numbers the cards that
    CUDA_VISIBLE_DEVICES leaves, as Triton does. Without a card the value has no effect.
    """
    cuda_graph: bool = False
    """Whether the passes of a step are recorded once and then replayed, which relieves the host's processor.
    """
    embedding_cache: int = Field(default=64, ge=0, le=100_000)
    """Most prompts whose embeddings are kept for later requests."""
    lora_staging_mib: int = Field(default=4608, ge=0)
    """Memory for new weights on the device that runs the networks, while LoRAs are applied. With less memory
    the weights are replaced in several turns; weights that TensorRT has joined always go together. With 0 the
    host computes them.
    """
    resident_controlnets: PositiveInt | Literal["auto"] = "auto"
    """Most ControlNets that are open at the same time, and so the most that one request may use. A request
    for another one closes the one that was used longest ago (docs/controls.md). `auto` is decided by the
    build: as many as `memory_limit_gib` allows, or all without a limit.
    """
    overtakes: int = Field(default=8, ge=0, le=1000)
    """How many requests may overtake one that came before them, because they are shorter, have a higher
    priority, or need no swap of LoRAs or ControlNets. A higher number means a shorter wait on average, fewer
    swaps, and a longer wait in the worst case.
    """
    slice_steps: int = Field(default=5, ge=1, le=150)
    """Calls of the UNet after which another request may go first. A request that streams may choose its own
    number.
    """


class Deployment(Strict):
    """A whole deployment; `load_deployment` reads one from its YAML file."""

    name: Annotated[RegistryId, Derived()]
    """The YAML file's name."""
    folder: Annotated[Path, Derived()]
    """The YAML file's folder."""
    base: tuple[Source, ...] = Field(min_length=1)
    """The checkpoint: one source, or several in order of preference. The build takes the first that is
    available.
    """
    vae: Source | None = None
    """A VAE instead of the checkpoint's own."""
    controlnets: dict[RegistryId, ControlNetSource] = Field(default_factory=dict)
    """ControlNets by an id of your choice. Requests name a control by that id, and those of a `union` by the
    ids there.
    """
    loras: dict[RegistryId, LoraSource] = Field(default_factory=dict)
    """LoRAs that `fuse` may name, by an id of your choice."""
    fuse: dict[RegistryId, LoraWeight | None] = Field(default_factory=dict)
    """LoRAs to fuse into the engines, with their weights; `null` takes the weight in `loras`. It cannot be
    combined with `swap`.
    """
    registry: Path | None = None
    """File of the LoRAs that requests may choose (docs/loras.md). `fuse` may name them too."""
    method: MethodName | None = None
    """Few-step method that the checkpoint was distilled with (docs/loras.md). A request gets its settings
    where it leaves them out.
    """
    swap: Swap = "off"
    """Which layers a running server may change: `transformer` (attention and feed-forward layers of UNet and
    text encoders) or `all` (the UNet's convolutions too, which LoCon changes).
    """
    profiles: Profiles
    """What the engines are compiled for."""
    precision: PrecisionChoice = "fp16"
    """Precision of the networks; `auto` is fp16 on a card and fp32 on the CPU."""
    runtime: Runtime = "auto"
    """What runs the networks. `auto` is TensorRT-RTX where both a card and the package are available, and
    ONNX Runtime on the CPU otherwise.
    """
    target: Target = "auto"
    """The card that engines are for, by compute capability; `auto` is the card of this machine."""
    verify_tolerance: float | None = Field(default=None, gt=0, le=1)
    """Largest relative error of an engine against PyTorch: norm of the difference over norm. Absent:
    0.012 for fp16 and 0.001 for fp32.
    """
    execution: Execution = Execution()
    """How the networks run."""
    limits: Limits = Limits()
    """What one request may ask for."""
    defaults: Defaults = Defaults()
    """Values of inputs that a request leaves out."""
    provenance: Provenance = Provenance()
    """What images say of where they come from."""
    memory_limit_gib: float | None = Field(default=None, gt=0, allow_inf_nan=False)
    """Most memory that the server may take of the device that runs the networks; `serve` refuses a build that
    would take more.
    """
    presets: Path | None = None
    """File of quality presets, styles, negative prompts and scenes that requests may name
    (docs/presets.md). A build publishes it, and a running server then uses it from its next request on.
    """
    poses: Path | None = None
    """Folder of poses: OpenPose keypoints, one file NAME.json for each pose."""
    detectors: dict[RegistryId, DetectorSource] = Field(default_factory=dict)
    """Detectors that turn a photograph into a control map, by an id of your choice (docs/controls.md)."""
    detector_process: DetectorProcess = DetectorProcess()
    """The process of a server that runs `detectors`."""
    identity: Identity | None = None
    """How faces are read and compared with characters (docs/characters.md). Absent: no face is read."""
    build: Path = Field(default=Path("build"), validate_default=True)
    """Folder of all builds, by default beside the YAML file; this deployment's lies in it under its name."""
    server: Server = Server()
    """Where Triton listens and how much it queues."""

    _build = field_validator("build")(resolved_path)

    @field_validator("base", mode="before")
    @classmethod
    def _one_base(cls, value: Any) -> Any:
        return [value] if isinstance(value, dict) else value

    @field_validator("poses", "presets", "registry")
    @classmethod
    def _resolved(cls, path: Path | None, info: ValidationInfo) -> Path | None:
        return None if path is None else resolved_path(path, info)

    @field_validator("detectors")
    @classmethod
    def _free_names(cls, detectors: dict[str, DetectorSource]) -> dict[str, DetectorSource]:
        for name in (AUTO, NO_DETECTOR):
            if name in detectors:
                raise ValueError(f"{name} has a meaning of its own in requests; give the detector another id")
        return detectors

    @model_validator(mode="after")
    def _consistent(self) -> Self:
        served_controls(self.controlnets)
        self._check_loras()
        self._check_limits()
        self._check_platform()
        return self

    def _check_loras(self) -> None:
        if unknown := sorted(set(self.fuse) - set(self.loras)):
            raise ValueError(f"fuse names LoRAs that `loras` does not list: {', '.join(unknown)}")
        if self.swap != "off" and self.fuse:
            raise ValueError("fuse changes the weights that swap must find pristine: use one of them")
        if self.swap != "off" and self.registry is None:
            raise ValueError("swap serves the LoRAs of a registry: give registry: loras.yaml")
        if len(set(self._built_methods.values())) > 1:
            shown = ", ".join(f"{owner} has {method}" for owner, method in self._built_methods.items())
            raise ValueError(f"methods contradict: {shown}; keep one few-step method")

    def _check_limits(self) -> None:
        batch, most_images = self.profiles.batch, self.limits.images
        if batch > most_images:
            raise ValueError(
                f"profiles.batch {batch} is above limits.images {most_images}: it would never be used"
            )
        values = self.defaults.model_dump() | self.defaults.preset_values
        modes = self.profiles.guidance_modes
        check_quality("defaults", values, most_steps=self.limits.steps, guidance_modes=modes)
        # A LoRA that requests choose is refused in a request: deployments share a registry, and one that
        # cannot draw with a LoRA's method is of use for the others.
        for owner, method in self._built_methods.items():
            place = f"{owner} (method {method})"
            values = dict(METHODS[method].values)
            check_quality(place, values, most_steps=self.limits.steps, guidance_modes=modes)

    def _check_platform(self) -> None:
        if self.runtime.startswith("tensorrt") and self.target == "cpu":
            raise ValueError("target cpu goes with runtime onnxruntime only")
        if self.runtime == "onnxruntime" and self.target not in ("auto", "cpu"):
            raise ValueError(
                f"runtime onnxruntime runs on the CPU; target {self.target} needs tensorrt-rtx or tensorrt"
            )
        if self.runtime != "auto":
            self.server.check_instances(on_card=self.runtime != "onnxruntime")

    @property
    def _built_methods(self) -> dict[str, str]:
        """The few-step methods of the base and of the fused LoRAs, by owner."""
        found = {lora: self.loras[lora].method for lora in self.fuse}
        named = {"base": self.method} | {f"loras.{lora}": method for lora, method in found.items()}
        return {owner: method for owner, method in named.items() if method is not None}

    @property
    def built_method(self) -> str | None:
        """The few-step method of what is built."""
        return next(iter(self._built_methods.values()), None)

    def precision_on(self, runtime: RuntimeName) -> Precision:
        """The precision of the networks that `runtime` runs, with `auto` resolved."""
        if self.precision != "auto":
            return self.precision
        return "fp32" if runtime == "onnxruntime" else "fp16"

    def resolved_for(self, runtime: RuntimeName) -> Self:
        """The deployment with the precision that `runtime` computes in."""
        return self.model_copy(update={"precision": self.precision_on(runtime)})

    def tolerance_on(self, runtime: RuntimeName) -> float:
        """`verify_tolerance`, or the default of the precision that `runtime` computes in."""
        if self.verify_tolerance is not None:
            return self.verify_tolerance
        return _TOLERANCES[self.precision_on(runtime)]

    @property
    def controls(self) -> dict[str, ServedControl]:
        """What requests may name as a control, by its id."""
        return served_controls(self.controlnets)

    @property
    def control_networks(self) -> dict[str, ControlNetSource]:
        """The ControlNets by the name of their network."""
        return {source.network(name): source for name, source in self.controlnets.items()}

    @property
    def swaps(self) -> bool:
        """Whether requests choose their LoRAs."""
        return self.swap != "off"

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
        """sha256 of every value that a build holds. It is the same on every machine: paths count as seen from
        the YAML file.
        """
        # These count: the build's model repository holds them.
        held = {"queue_size", "workers", "gpus", "instances"}
        if self.server.hang_seconds is not None:  # builds of before there was the key stay valid
            held.add("hang_seconds")
        excluded: dict[str, Any] = {
            "folder": True,
            "build": True,
            "memory_limit_gib": True,
            "server": set(Server.model_fields) - held,
        }
        if self.swaps:
            excluded["loras"] = True  # they come and go while such a build is served
        text = json.dumps(
            self.model_dump(exclude=excluded),
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
    data = read_yaml(path, hint="; name a deployment's YAML file, or write one with intaglio init DIR")
    if reserved := {"name", "folder"} & set(data):
        names = ", ".join(sorted(reserved))
        raise ConfigError(f"{path}: {names}: comes from the file's own path; take the field out")
    place = {"name": path.stem, "folder": path.parent.resolve()}
    data = with_default_preset(with_registry(data, path), path)
    deployment = validated(Deployment, {**data, **place}, path)
    if deployment.presets is not None:
        check_presets(
            deployment.presets,
            most_steps=deployment.limits.steps,
            guidance_modes=deployment.profiles.guidance_modes,
        )
    return deployment
