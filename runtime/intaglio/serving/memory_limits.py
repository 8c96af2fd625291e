"""Whether a deployment fits into the memory it may take, and what would help where it does not."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Final

from intaglio.builds.manifest import BuildManifest
from intaglio.contract.architecture import SDXL_ARCHITECTURE
from intaglio.contract.config import Deployment, Profiles
from intaglio.engines.card import read_card_memory
from intaglio.errors import ConfigError
from intaglio.sampling.tiles import decoded_sizes
from intaglio.serving.cards import served_gpus
from intaglio.serving.memory import GIB, Prediction, predict_memory

__all__ = ["Remedy", "check_memory", "check_memory_beside", "remedies"]

_SMALL_STAGING_MIB: Final = 768
"""Recommended where memory is short. It means more turns, each with the fixed cost of a refit."""
_SMALL_TILE: Final = 1024 * 1024
"""Pixels of a tile that is recommended where memory is short."""
_FEW_CONTROLNETS: Final = (1, 2)
"""Numbers of open ControlNets that are recommended where memory is short."""
_REMEDIES_SHOWN: Final = 4


@dataclass(frozen=True, slots=True)
class Remedy:
    """A change of the configuration, and the memory that it would then take."""

    change: str
    bytes: int


def remedies(deployment: Deployment, manifest: BuildManifest | None) -> tuple[Remedy, ...]:
    """Changes that would save memory, the largest saving first; each is considered alone."""
    deployment = deployment.resolved_for("tensorrt-rtx" if manifest is None else manifest.runtime)
    now = predict_memory(deployment, manifest).bytes
    found = []
    for change, other in _alternatives(deployment):
        left = predict_memory(other, manifest).bytes
        if left < now:
            found.append(Remedy(change, left))
    return tuple(sorted(found, key=lambda remedy: remedy.bytes))


def _alternatives(deployment: Deployment) -> Iterator[tuple[str, Deployment]]:
    profiles = deployment.profiles
    if deployment.precision == "fp32":
        yield "precision: fp16", deployment.model_copy(update={"precision": "fp16"})
    if deployment.swaps and deployment.execution.lora_staging_mib > _SMALL_STAGING_MIB:
        less = deployment.execution.model_copy(update={"lora_staging_mib": _SMALL_STAGING_MIB})
        change = f"execution.lora_staging_mib: {_SMALL_STAGING_MIB}"
        yield change, deployment.model_copy(update={"execution": less})
    if profiles.batch > 1:
        yield "profiles.batch: 1", _with_profiles(deployment, batch=1)
    largest_tile = max(width * height for width, height in decoded_sizes(profiles, SDXL_ARCHITECTURE))
    if largest_tile > _SMALL_TILE:
        change = f"profiles.decoder_pixels: {_SMALL_TILE}"
        yield change, _with_profiles(deployment, decoder_pixels=_SMALL_TILE)
    if len(profiles.sizes) > 1:
        largest = max(profiles.sizes, key=lambda size: size[0] * size[1])
        rest = [size for size in profiles.sizes if size != largest]
        yield f"no size {largest[0]}x{largest[1]}", _with_profiles(deployment, sizes=rest)
    for count in _FEW_CONTROLNETS:
        less = deployment.execution.model_copy(update={"resident_controlnets": count})
        change = f"execution.resident_controlnets: {count}"
        yield change, deployment.model_copy(update={"execution": less})
    for control in deployment.controlnets:
        others = {name: source for name, source in deployment.controlnets.items() if name != control}
        yield f"no ControlNet {control}", deployment.model_copy(update={"controlnets": others})


def _with_profiles(deployment: Deployment, **values: object) -> Deployment:
    profiles = Profiles.model_validate(deployment.profiles.model_dump() | values)
    return deployment.model_copy(update={"profiles": profiles})


def check_memory(
    deployment: Deployment, manifest: BuildManifest | None, *, free: int | None = None
) -> Prediction:
    """The prediction, if it fits into `memory_limit_gib` and into the card's free memory.

    The driver says how much is free, unless `free` does (bytes).

    Raises:
        ConfigError: it does not fit; with the sizes, and the changes that would help.
    """
    prediction = predict_memory(deployment, manifest)
    limits: dict[str, int] = {}
    if deployment.memory_limit_gib is not None:
        limits["memory_limit_gib allows"] = int(deployment.memory_limit_gib * GIB)
    if prediction.place == "card":
        limits |= _free_limit(deployment, free)
    if (short := _short_of(prediction, limits)) is not None:
        offered = remedies(deployment, manifest)[:_REMEDIES_SHOWN]
        helps = ", ".join(f"{remedy.change} ({remedy.bytes / GIB:.2f} GiB)" for remedy in offered)
        change = f"what would help: {helps}" if helps else "nothing in this configuration can be left out"
        needs = f"{deployment.name} needs {prediction.summary} of the {prediction.place}'s memory"
        raise ConfigError(f"{needs}; {short}; {change}")
    return prediction


def check_memory_beside(
    deployment: Deployment, manifest: BuildManifest, served: Prediction, *, free: int | None = None
) -> Prediction:
    """The prediction of a build that is loaded while another, `served`, stays loaded.

    Only a card can be too small for both: a host pages.

    Raises:
        ConfigError: `memory_limit_gib` or the card cannot hold both; with the sizes, and what to do instead.
    """
    prediction = predict_memory(deployment, manifest)
    if prediction.place == "host":
        return check_memory(deployment, manifest)
    limits = _free_limit(deployment, free)
    if deployment.memory_limit_gib is not None:
        left = int(deployment.memory_limit_gib * GIB) - served.bytes
        limits["memory_limit_gib leaves"] = max(left, 0)
    if (short := _short_of(prediction, limits)) is not None:
        needs = f"{deployment.name} needs {prediction.summary} of the card's memory"
        beside = f"beside the {served.bytes / GIB:.2f} GiB served"
        raise ConfigError(f"{needs} {beside}; {short}; restart `intaglio serve` instead")
    return prediction


def _free_limit(deployment: Deployment, free: int | None) -> dict[str, int]:
    """What the cards of `deployment` have free, where somebody knows it.

    Raises:
        ConfigError: the machine has cards, but not one of those.
    """
    if free is not None:
        return {"the card has free": free}
    limits: dict[str, int] = {}
    for gpu in served_gpus(deployment):
        card = read_card_memory(gpu)
        if card is not None:
            whose = "the card" if deployment.server.gpus is None else f"gpu {gpu}"
            limits[f"{whose} has free"] = card.free
    return limits


def _short_of(prediction: Prediction, limits: Mapping[str, int]) -> str | None:
    """The first limit that the prediction exceeds, in words."""
    for whose, most in limits.items():
        if prediction.bytes > most:
            return f"{whose} {most / GIB:.2f} GiB"
    return None
