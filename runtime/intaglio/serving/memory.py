"""How much memory a deployment takes where it computes, before it is loaded: the card's with TensorRT, the
host's with ONNX Runtime.

    contexts      what the driver takes for Triton and for the one process that computes
    weights       the engines' files where they are built, parameters x bytes where they are not
    activations   one arena for all engines: the largest need, which TensorRT reports, or the measured need of SDXL scaled by pixels
    buffers       inputs and outputs of the largest size, from the tensor table
    margin        what allocators round up
Estimates rest on figures measured with SDXL on an H200 (docs/performance.md).
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Final, Literal

import numpy as np

from intaglio.builds.manifest import BuildManifest
from intaglio.contract.architecture import (
    PARAMETERS,
    SDXL_ARCHITECTURE,
    Architecture,
)
from intaglio.contract.config import Deployment, Profiles
from intaglio.contract.sdxl import axis_sizes, context_name, controlnet_name, network_kind, network_spec
from intaglio.contract.tensors import NetworkSpec
from intaglio.engines.card import read_card_memory
from intaglio.errors import ConfigError
from intaglio.sampling.tiles import decoded_sizes

__all__ = [
    "GIB",
    "Part",
    "Prediction",
    "Remedy",
    "check_memory",
    "check_memory_beside",
    "predict_memory",
    "remedies",
]

MIB: Final = 2**20
GIB: Final = 2**30
_SERVED: Final = ("text_encoder", "text_encoder_2", "vae_decoder")
_CONTEXTS: Final = 1163 * MIB
"""Driver's share of Triton and one Python process together, measured."""
_MARGIN: Final = 256 * MIB
_PROFILE: Final = 44 * MIB
"""What every further profile adds to the UNet's plan, measured; the others' are smaller."""
_SMALL_STAGING_MIB: Final = 768
"""Recommended where memory is short: more turns, each with a refit's fixed cost."""
_MEASURED_PIXELS: Final = 1024 * 1024
_ACTIVATIONS: Final = {
    "unet": 287 * MIB,
    "unet_context": 64 * MIB,
    "controlnet": 149 * MIB,
    "controlnet_context": 128 * MIB,
    "vae_decoder": 1288 * MIB,
    "text_encoder": 16 * MIB,
    "text_encoder_2": 32 * MIB,
}
"""Of one image of 1024x1024 (UNet and ControlNet with guidance) in fp16; text encoders and contexts, which
never decide, are guesses.
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

    @property
    def bytes(self) -> int:
        """The whole."""
        return sum(part.bytes for part in self.parts)

    @property
    def summary(self) -> str:
        """`12.1 GiB (contexts 1.1, weights 9.2, ...)`."""
        groups: dict[str, int] = {}
        for part in self.parts:
            group = part.name.partition(" ")[0]
            groups[group] = groups.get(group, 0) + part.bytes
        return f"{self.bytes / GIB:.2f} GiB ({', '.join(f'{name} {size / GIB:.2f}' for name, size in groups.items())})"


@dataclass(frozen=True, slots=True)
class Remedy:
    """A change of the configuration, and what it would leave."""

    change: str
    bytes: int


def predict_memory(deployment: Deployment, manifest: BuildManifest | None) -> Prediction:
    """`manifest` is the deployment's build, None where it is not built (then everything is an estimate for a
    card).
    """
    place: Literal["card", "host"] = (
        "host" if manifest is not None and manifest.runtime == "onnxruntime" else "card"
    )
    contexts = (Part("contexts", _CONTEXTS, "measured, Triton and one process"),) if place == "card" else ()
    weights = tuple(_weights(deployment, manifest))
    margin = Part("margin", _MARGIN, "allowance")
    parts = (
        _activations(deployment, manifest),
        _buffers(deployment, manifest),
        *_staging(deployment, manifest),
    )
    return Prediction(place, (*contexts, *weights, *parts, margin))


def _networks(deployment: Deployment) -> tuple[str, ...]:
    steps = ("unet", *map(controlnet_name, deployment.controlnets))
    return (*_SERVED, *(name for step in steps for name in (step, context_name(step))))


def _architecture(manifest: BuildManifest | None) -> Architecture:
    return SDXL_ARCHITECTURE if manifest is None else manifest.architecture


def _element(deployment: Deployment) -> int:
    return 2 if deployment.precision == "fp16" else 4


def _weights(deployment: Deployment, manifest: BuildManifest | None) -> Iterator[Part]:
    counts = PARAMETERS[deployment.base[0].architecture or "sdxl-base-1.0"]
    modes, sizes = len(deployment.profiles.guidance_modes), len(deployment.profiles.sizes)
    for name in _networks(deployment):
        kind = network_kind(name)
        built = None if manifest is None else manifest.networks.get(name)
        if built is not None:
            size = sum(digest.size for file, digest in built.files.items() if file != built.pristine)
            yield Part(f"weights {name}", size, "the engine's files")
            continue
        further = (
            modes * sizes * len(deployment.profiles.batches) * deployment.profiles.text_chunks - 1
            if kind == "unet"
            else 0
        )
        yield Part(
            f"weights {name}",
            counts[kind] * _element(deployment) + further * _PROFILE,
            "estimate: parameters and profiles",
        )


def _staging(deployment: Deployment, manifest: BuildManifest | None) -> Iterator[Part]:
    """New weights on their way while LoRAs are put on: of one component at a time."""
    limit = deployment.execution.lora_staging_mib * MIB
    if deployment.swap == "off" or not limit:
        return
    counts = PARAMETERS[deployment.base[0].architecture or "sdxl-base-1.0"]
    most = (counts["unet"] + counts["unet_context"]) * _element(deployment)
    if manifest is not None:
        most = max(
            (
                file.files[file.pristine].size
                for file in manifest.networks.values()
                if file.pristine is not None
            ),
            default=0,
        )
    # TensorRT joins all keys and values of the prompt, as they read the same text, and takes them at once.
    least = (
        0
        if manifest is not None and manifest.runtime == "onnxruntime"
        else counts["unet_context"] * _element(deployment)
    )
    yield Part(
        "staging",
        min(max(limit, least), most),
        "execution.lora_staging_mib, or the weights that LoRAs change",
    )


def _activations(deployment: Deployment, manifest: BuildManifest | None) -> Part:
    """The arena: engines run one after another, so the largest need is all."""
    needs: dict[str, tuple[int, str]] = {}
    for name in _networks(deployment):
        built = None if manifest is None else manifest.networks.get(name)
        if (
            manifest is not None
            and name == "vae_decoder"
            and manifest.profiles.decoder_pixels != deployment.profiles.decoder_pixels
        ):
            built = None  # what another configuration would need, a remedy
        if built is not None and built.activation_bytes is not None:
            needs[name] = (built.activation_bytes, "the engine says so")
        else:
            needs[name] = (_activation_estimate(deployment, name), "estimate: SDXL's, by pixels")
    most = max(needs, key=lambda name: needs[name][0])
    return Part(f"activations {most}", *needs[most])


def _activation_estimate(deployment: Deployment, name: str) -> int:
    profiles, kind = deployment.profiles, network_kind(name)
    sizes = decoded_sizes(profiles, SDXL_ARCHITECTURE) if kind == "vae_decoder" else profiles.sizes
    pixels = max(width * height for width, height in sizes)
    rows = 1.0 if kind.startswith(("text", "vae")) or True in profiles.guidance_modes else 0.5
    share = rows * profiles.batch * (1 if kind.startswith("text") else pixels / _MEASURED_PIXELS)
    return int(_ACTIVATIONS[kind] * share * _element(deployment) / 2)


def _buffers(deployment: Deployment, manifest: BuildManifest | None) -> Part:
    """Of the largest size with both guidance modes resident, and of what runs once an image."""
    largest = max(
        _size_buffers(deployment, _architecture(manifest), size) for size in deployment.profiles.sizes
    )
    return Part("buffers", largest, "tensor table, largest size")


def _size_buffers(deployment: Deployment, architecture: Architecture, size: tuple[int, int]) -> int:
    profiles, controls = deployment.profiles, len(deployment.controlnets)
    places = (
        max(controls, deployment.limits.controls) if controls else 0
    )  # the start has one of each, a request one often
    names = (*_SERVED, "unet", controlnet_name("any"), context_name(controlnet_name("any")))
    spec = {network_kind(name): network_spec(name, architecture) for name in names}
    found = 0
    for guidance in profiles.guidance_modes:
        sizes = axis_sizes(
            architecture,
            width=size[0],
            height=size[1],
            images=profiles.batch,
            guidance=guidance,
            chunks=profiles.text_chunks,
        )
        found += _tensor_bytes(deployment, spec["unet"], sizes)
        residuals = _tensor_bytes(deployment, spec["controlnet"], sizes, outputs_only=True)
        found += residuals * min(places, 2)  # set 0 is the UNet's own; a chain writes two others in turn
        found += places * _tensor_bytes(deployment, spec["controlnet_context"], sizes)
        noise = spec["unet"].tensor("noise")
        found += deployment.limits.steps * int(np.prod(noise.shape(sizes))) * 4
    sizes = axis_sizes(
        architecture, width=size[0], height=size[1], images=profiles.batch, chunks=profiles.text_chunks
    )
    return found + sum(_tensor_bytes(deployment, spec[name], sizes) for name in _SERVED)


def _tensor_bytes(
    deployment: Deployment, spec: NetworkSpec, sizes: Mapping[str, int], *, outputs_only: bool = False
) -> int:
    tensors = spec.outputs if outputs_only else spec.tensors
    return sum(
        int(np.prod(tensor.shape(sizes), dtype=np.int64))
        * np.dtype(tensor.numpy_dtype(deployment.precision)).itemsize
        for tensor in tensors
    )


def remedies(deployment: Deployment, manifest: BuildManifest | None) -> tuple[Remedy, ...]:
    """Changes that would save memory, the largest saving first; each taken alone."""
    now, found = predict_memory(deployment, manifest).bytes, []
    for change, other in _alternatives(deployment):
        left = predict_memory(other, manifest).bytes
        if left < now:
            found.append(Remedy(change, left))
    return tuple(sorted(found, key=lambda remedy: remedy.bytes))


def _alternatives(deployment: Deployment) -> Iterator[tuple[str, Deployment]]:
    profiles = deployment.profiles

    def changed(**values: object) -> Deployment:
        return deployment.model_copy(
            update={"profiles": Profiles.model_validate(profiles.model_dump() | values)}
        )

    if deployment.precision == "fp32":
        yield "precision: fp16", deployment.model_copy(update={"precision": "fp16"})
    if deployment.swap != "off" and deployment.execution.lora_staging_mib > _SMALL_STAGING_MIB:
        less = deployment.execution.model_copy(update={"lora_staging_mib": _SMALL_STAGING_MIB})
        yield (
            f"execution.lora_staging_mib: {_SMALL_STAGING_MIB}",
            deployment.model_copy(update={"execution": less}),
        )
    if profiles.batch > 1:
        yield "profiles.batch: 1", changed(batch=1)
    largest_tile = max(width * height for width, height in decoded_sizes(profiles, SDXL_ARCHITECTURE))
    if largest_tile > _MEASURED_PIXELS:
        yield f"profiles.decoder_pixels: {_MEASURED_PIXELS}", changed(decoder_pixels=_MEASURED_PIXELS)
    if len(profiles.sizes) > 1:
        largest = max(profiles.sizes, key=lambda size: size[0] * size[1])
        rest = [size for size in profiles.sizes if size != largest]
        yield f"no size {largest[0]}x{largest[1]}", changed(sizes=rest)
    for control in deployment.controlnets:
        rest_of = {name: source for name, source in deployment.controlnets.items() if name != control}
        yield f"no ControlNet {control}", deployment.model_copy(update={"controlnets": rest_of})


def check_memory(
    deployment: Deployment, manifest: BuildManifest | None, *, free: int | None = None
) -> Prediction:
    """The prediction, if it fits into `memory_limit_gib` and into what the card has free (`free` where given,
    else the driver's word).

    Raises:
        ConfigError: it does not; with the numbers, and the changes that would help.
    """
    prediction = predict_memory(deployment, manifest)
    limits: dict[str, int] = {}
    if deployment.memory_limit_gib is not None:
        limits["memory_limit_gib allows"] = int(deployment.memory_limit_gib * GIB)
    if prediction.place == "card":
        card = read_card_memory()
        available = free if free is not None else None if card is None else card.free
        if available is not None:
            limits["the card has free"] = available
    for whose, most in limits.items():
        if prediction.bytes > most:
            helps = [
                f"{remedy.change} ({remedy.bytes / GIB:.2f} GiB)"
                for remedy in remedies(deployment, manifest)[:4]
            ]
            change = (
                f"what would help: {', '.join(helps)}"
                if helps
                else "nothing in this configuration can be left out"
            )
            raise ConfigError(
                f"{deployment.name} needs {prediction.summary} of the {prediction.place}'s memory; {whose} {most / GIB:.2f} GiB; {change}"
            )
    return prediction


def check_memory_beside(
    deployment: Deployment, manifest: BuildManifest, served: Prediction, *, free: int | None = None
) -> Prediction:
    """The prediction of a build that is to be loaded while another, `served`, stays loaded; the host pages,
    so only a card is short.

    Raises:
        ConfigError: `memory_limit_gib` or the card has no room for both; with the numbers, and what to do
            instead.
    """
    prediction = predict_memory(deployment, manifest)
    if prediction.place == "host":
        return check_memory(deployment, manifest)
    card = read_card_memory()
    available = free if free is not None else None if card is None else card.free
    limits = {} if available is None else {"the card has free": available}
    if deployment.memory_limit_gib is not None:
        limits["memory_limit_gib leaves"] = int(deployment.memory_limit_gib * GIB) - served.bytes
    for whose, most in limits.items():
        if prediction.bytes > most:
            raise ConfigError(
                f"{deployment.name} needs {prediction.summary} of the card's memory beside the {served.bytes / GIB:.2f} GiB served; "
                f"{whose} {max(most, 0) / GIB:.2f} GiB; stop `intaglio serve` and start it again instead"
            )
    return prediction
