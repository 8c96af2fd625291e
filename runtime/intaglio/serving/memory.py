"""How much memory a deployment takes: of the card with TensorRT, of the host with ONNX Runtime.

    contexts      what the driver takes for Triton and for the one process that computes
    weights       the engines' files where they are built, otherwise parameters x bytes; of ControlNets
                  those that are open at the same time, the largest ones
    activations   one arena for all engines: the largest need, as TensorRT reports it, otherwise SDXL's
                  measured need scaled by pixels
    buffers       inputs and outputs of the largest size, from the tensor table
    staging       new weights while LoRAs are applied
    merging       inputs and output of the network that computes them, of the largest matrix and rank
On the host small ControlNets are opened twice, to run two of them at the same time: `_opened_twice`.
    margin        what allocators round up
Estimates rest on figures that were measured with SDXL on an H200 (docs/performance.md).
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Final, Literal

import numpy as np

from intaglio.builds.manifest import BuildManifest, NetworkFile
from intaglio.contract.architecture import PARAMETERS, SDXL_ARCHITECTURE, Architecture
from intaglio.contract.config import Deployment
from intaglio.contract.sdxl import (
    LARGEST_RANK,
    LORA_MERGE,
    axis_sizes,
    context_name,
    control_of,
    controlnet_name,
    network_kind,
    network_spec,
    opened_networks,
    union_name,
)
from intaglio.contract.tensors import AxisSizes, TensorSpec, compute_dtype
from intaglio.engines.onnxruntime import OPENED_TWICE
from intaglio.sampling.tiles import decoded_sizes

__all__ = ["GIB", "MIB", "Part", "Prediction", "fitting_controlnets", "predict_memory"]

MIB: Final = 2**20
GIB: Final = 2**30
_CONTEXTS: Final = 1163 * MIB
"""Driver's share of Triton and one Python process together, measured."""
_MARGIN: Final = 256 * MIB
_ALLOWANCE: Final = "margin"
_PROFILE: Final = 44 * MIB
"""What every further profile adds to the UNet's plan, measured. The other plans grow less."""
_MEASURED_PIXELS: Final = 1024 * 1024
_ACTIVATIONS: Final = {
    "unet": 287 * MIB,
    "unet_context": 64 * MIB,
    "controlnet": 149 * MIB,
    "controlnet_context": 128 * MIB,
    "vae_decoder": 1288 * MIB,
    "text_encoder": 16 * MIB,
    "text_encoder_2": 32 * MIB,
    LORA_MERGE: 128 * MIB,
}
"""Activations in fp16 of one image of 1024x1024, with guidance; of the largest matrix for `lora_merge`.
Those of text encoders, contexts and `lora_merge` are guesses: they are never the largest.
"""


@dataclass(frozen=True, slots=True)
class Part:
    """One share of the memory."""

    name: str
    bytes: int
    source: str
    """Where the number comes from."""


@dataclass(frozen=True, slots=True)
class Prediction:
    """What a deployment will take."""

    place: Literal["card", "host"]
    parts: tuple[Part, ...]
    controlnets: str = ""
    """How many ControlNets are open at the same time, in words; "" where all are."""

    @property
    def bytes(self) -> int:
        """The sum of all parts."""
        return sum(part.bytes for part in self.parts)

    @property
    def expected(self) -> int:
        """Bytes without the allowance: what a measurement should find."""
        return sum(part.bytes for part in self.parts if part.name != _ALLOWANCE)

    @property
    def summary(self) -> str:
        """`12.1 GiB (contexts 1.1, weights 9.2, ...)`."""
        groups: dict[str, int] = {}
        for part in self.parts:
            group = part.name.partition(" ")[0]
            groups[group] = groups.get(group, 0) + part.bytes
        shares = ", ".join(f"{name} {size / GIB:.2f}" for name, size in groups.items())
        controlnets = f"; {self.controlnets}" if self.controlnets else ""
        return f"{self.bytes / GIB:.2f} GiB ({shares}{controlnets})"


def predict_memory(deployment: Deployment, manifest: BuildManifest | None) -> Prediction:
    """What `deployment` will take.

    `manifest` is its build. With None, everything is an estimate for a card.
    """
    asked = deployment.execution.resident_controlnets
    if asked == "auto" and manifest is not None:
        asked = manifest.resident_controlnets
    if asked == "auto":
        asked = fitting_controlnets(deployment, manifest)
    resident = min(asked, len(deployment.control_networks))
    return _predicted(deployment, manifest, resident=resident)


def fitting_controlnets(deployment: Deployment, manifest: BuildManifest | None) -> int:
    """How many ControlNets can be open at the same time within `memory_limit_gib`; at least one, if any."""
    every = len(deployment.control_networks)
    if deployment.memory_limit_gib is None:
        return every
    limit = deployment.memory_limit_gib * GIB
    for count in range(every, 1, -1):
        if _predicted(deployment, manifest, resident=count).bytes <= limit:
            return count
    return min(1, every)


def _predicted(deployment: Deployment, manifest: BuildManifest | None, *, resident: int) -> Prediction:
    """The prediction for `resident` open ControlNets."""
    on_host = manifest is not None and manifest.runtime == "onnxruntime"
    deployment = deployment.resolved_for("tensorrt-rtx" if manifest is None else manifest.runtime)
    every = len(deployment.control_networks)
    shared = f"{resident} of {every} ControlNets at the same time" if resident < every else ""
    parts = [
        *_weights(deployment, manifest, resident=resident),
        _activations(deployment, manifest),
        _buffers(deployment, manifest),
        *_staging(deployment, manifest),
        *_merging(deployment, manifest),
        Part(_ALLOWANCE, _MARGIN, "allowance"),
    ]
    if on_host:
        instances = deployment.server.instances
        if instances > 1:
            each = sum(part.bytes for part in parts)
            parts.append(Part("instances", (instances - 1) * each, "as much for each further instance"))
        return Prediction("host", tuple(parts), shared)
    contexts = Part("contexts", _CONTEXTS, "measured, Triton and one process")
    return Prediction("card", (contexts, *parts), shared)


def _opened_twice(deployment: Deployment, manifest: BuildManifest | None) -> tuple[str, ...]:
    """ControlNets that ONNX Runtime opens twice, to run two of a request at the same time."""
    on_host = manifest is not None and manifest.runtime == "onnxruntime"
    if not on_host or deployment.limits.controls < 2:
        return ()
    sizes = {name: _network_weights(deployment, manifest, name).bytes for name in deployment.control_networks}
    return tuple(name for name, size in sizes.items() if size <= OPENED_TWICE)


def _networks(deployment: Deployment) -> tuple[str, ...]:
    merges = deployment.swaps and deployment.execution.lora_staging_mib > 0
    return opened_networks(deployment.control_networks, merges=merges)


def _estimated_kind(name: str) -> str:
    """The kind of network whose numbers are known. A ControlNet-Union has 0.5 % more parameters than a
    ControlNet, and the same activations.
    """
    return network_kind(name).replace("_union", "")


def _built(manifest: BuildManifest | None, name: str) -> NetworkFile | None:
    return None if manifest is None else manifest.networks.get(name)


def _parameters(deployment: Deployment, kind: str) -> int:
    if kind == LORA_MERGE:
        return 0  # it has no weights of its own
    return PARAMETERS[deployment.base[0].architecture or "sdxl-base-1.0"][kind]


def _element(deployment: Deployment) -> int:
    """Bytes of one value in the deployment's precision."""
    # `predict_memory` has resolved `auto` already.
    return np.dtype(compute_dtype(deployment.precision_on("tensorrt-rtx"))).itemsize


def _weights(deployment: Deployment, manifest: BuildManifest | None, *, resident: int) -> Iterator[Part]:
    """Of every network that is open; of ControlNets the `resident` largest."""
    found = {name: _network_weights(deployment, manifest, name) for name in _networks(deployment)}
    for name in _opened_twice(deployment, manifest):
        part = found[name]
        found[name] = Part(part.name, 2 * part.bytes, f"{part.source}, opened twice")
    sizes: dict[str, int] = {}
    for name, part in found.items():
        if control := control_of(name):
            sizes[control] = sizes.get(control, 0) + part.bytes
    largest = sorted(sizes, key=lambda control: -sizes[control])[:resident]
    for name, part in found.items():
        control = control_of(name)
        if not control or control in largest:
            yield part


def _network_weights(deployment: Deployment, manifest: BuildManifest | None, name: str) -> Part:
    built = _built(manifest, name)
    if built is not None:
        return Part(f"weights {name}", built.size, "the engine's files")
    size = _weights_estimate(deployment, _estimated_kind(name))
    return Part(f"weights {name}", size, "estimate: parameters and profiles")


def _weights_estimate(deployment: Deployment, kind: str) -> int:
    size = _parameters(deployment, kind) * _element(deployment)
    if kind != "unet":
        return size
    asked = deployment.profiles
    profiles = len(asked.guidance_modes) * len(asked.sizes) * len(asked.batches) * asked.text_chunks
    return size + (profiles - 1) * _PROFILE


def _staging(deployment: Deployment, manifest: BuildManifest | None) -> Iterator[Part]:
    """New weights while LoRAs are applied, of one component at a time."""
    limit = deployment.execution.lora_staging_mib * MIB
    if not deployment.swaps or not limit:
        return
    context = _parameters(deployment, "unet_context") * _element(deployment)
    if manifest is None:
        most = _parameters(deployment, "unet") * _element(deployment) + context
    else:
        most = max(_pristine_sizes(manifest), default=0)
    on_host = manifest is not None and manifest.runtime == "onnxruntime"
    # TensorRT merges the layers that make keys and values, since all read the same prompt. It takes their new
    # weights only together.
    least = 0 if on_host else context
    source = "execution.lora_staging_mib, or the weights that LoRAs change"
    yield Part("staging", min(max(limit, least), most), source)


def _merging(deployment: Deployment, manifest: BuildManifest | None) -> Iterator[Part]:
    """One buffer for each tensor of `lora_merge`, which grows with the largest matrix and rank so far."""
    if LORA_MERGE not in _networks(deployment):
        return
    architecture = SDXL_ARCHITECTURE if manifest is None else manifest.architecture
    short = max(architecture.mid_residual.channels, architecture.text_width, architecture.text_width_2)
    # The largest matrices are those of the UNet's gated feed-forward layers, which are eight times as long as
    # wide. Either side may be the long one.
    long = 8 * short
    found = 0
    for tensor in network_spec(LORA_MERGE, architecture).tensors:
        shapes = [{"i": long, "o": short}, {"i": short, "o": long}]
        found += max(_tensor_bytes(deployment, (tensor,), {**sides, "r": LARGEST_RANK}) for sides in shapes)
    yield Part("merging", found, "tensor table, largest matrix and rank")


def _pristine_sizes(manifest: BuildManifest) -> Iterator[int]:
    for network in manifest.networks.values():
        if network.pristine is not None:
            yield network.files[network.pristine].size


def _activations(deployment: Deployment, manifest: BuildManifest | None) -> Part:
    """The arena: engines run one after another, so it is as large as the largest need. A ControlNet that runs
    beside another one has an arena of its own.
    """
    needs = {name: _activation_need(deployment, manifest, name) for name in _networks(deployment)}
    most = max(needs, key=lambda name: needs[name][0])
    size, source = needs[most]
    beside = max((needs[name][0] for name in _opened_twice(deployment, manifest)), default=0)
    return Part(f"activations {most}", size + beside, source)


def _activation_need(deployment: Deployment, manifest: BuildManifest | None, name: str) -> tuple[int, str]:
    """Bytes of the network's largest profile, and where the number comes from."""
    built = _built(manifest, name)
    if name == "vae_decoder" and _decodes_otherwise(deployment, manifest):
        built = None
    if built is not None and built.activation_bytes is not None:
        return built.activation_bytes, "the engine says so"
    return _activation_estimate(deployment, name), "estimate: SDXL's, by pixels"


def _decodes_otherwise(deployment: Deployment, manifest: BuildManifest | None) -> bool:
    """Whether the build's decoder is made for other tiles. It is where a remedy is considered."""
    if manifest is None:
        return False
    return manifest.profiles.decoder_pixels != deployment.profiles.decoder_pixels


def _activation_estimate(deployment: Deployment, name: str) -> int:
    profiles, kind = deployment.profiles, _estimated_kind(name)
    whole = _ACTIVATIONS[kind] * _element(deployment) / 2
    if kind == LORA_MERGE:
        return int(whole)
    if kind.startswith("text"):
        return int(whole * profiles.batch)
    sizes = decoded_sizes(profiles, SDXL_ARCHITECTURE) if kind == "vae_decoder" else profiles.sizes
    pixels = max(width * height for width, height in sizes)
    halved = kind != "vae_decoder" and True not in profiles.guidance_modes
    rows = 0.5 if halved else 1.0
    return int(whole * rows * profiles.batch * pixels / _MEASURED_PIXELS)


def _buffers(deployment: Deployment, manifest: BuildManifest | None) -> Part:
    """Of the largest size: the buffers of both guidance modes, and of networks that run once an image."""
    architecture = SDXL_ARCHITECTURE if manifest is None else manifest.architecture
    apart = bool(_opened_twice(deployment, manifest))
    sizes = deployment.profiles.sizes
    largest = max(_size_buffers(deployment, architecture, size, apart=apart) for size in sizes)
    return Part("buffers", largest, "tensor table, largest size")


def _size_buffers(
    deployment: Deployment, architecture: Architecture, size: tuple[int, int], *, apart: bool
) -> int:
    profiles = deployment.profiles
    axes = {
        guidance: axis_sizes(
            architecture,
            width=size[0],
            height=size[1],
            images=profiles.batch,
            guidance=guidance,
            chunks=profiles.text_chunks,
        )
        for guidance in (True, False)
    }
    steps = [
        _step_buffers(deployment, architecture, axes[mode], apart=apart) for mode in profiles.guidance_modes
    ]
    once = ("text_encoder", "text_encoder_2", "vae_decoder")
    specs = [network_spec(name, architecture) for name in once]
    return sum(steps) + sum(_tensor_bytes(deployment, spec.tensors, axes[True]) for spec in specs)


def _step_buffers(
    deployment: Deployment, architecture: Architecture, sizes: AxisSizes, *, apart: bool
) -> int:
    """What the steps of one guidance mode read and write. Where ControlNets run `apart`, each control after
    the first has residuals of its own.
    """
    # Each control of a request has a place of its own, whichever ControlNet it names.
    places = deployment.limits.controls if deployment.controlnets else 0
    # A union's context has one tensor more than that of a ControlNet of one type.
    has_union = any(source.union for source in deployment.controlnets.values())
    control = union_name("any") if has_union else controlnet_name("any")
    unet = network_spec("unet", architecture)
    residuals = network_spec(control, architecture).outputs
    context = network_spec(context_name(control), architecture)
    noise = unet.tensor("noise")
    found = _tensor_bytes(deployment, unet.tensors, sizes)
    # The UNet's own set is zeros. A chain of ControlNets writes two other sets in turn.
    sets = min(places, 2) + (places - 1 if apart else 0)
    found += _tensor_bytes(deployment, residuals, sizes) * sets
    found += _tensor_bytes(deployment, context.tensors, sizes) * places
    if has_union:
        # The embedding of no control; where windows differ, one more for each end of a window.
        embedding = _tensor_bytes(deployment, (context.tensor("embedding_before"),), sizes)
        found += embedding * (1 + 2 * places)
    return found + _tensor_bytes(deployment, (noise,), sizes) * deployment.limits.steps


def _tensor_bytes(deployment: Deployment, tensors: tuple[TensorSpec, ...], sizes: Mapping[str, int]) -> int:
    precision = deployment.precision_on("tensorrt-rtx")  # resolved already
    total = 0
    for tensor in tensors:
        values = int(np.prod(tensor.shape(sizes), dtype=np.int64))
        total += values * np.dtype(tensor.numpy_dtype(precision)).itemsize
    return total
