"""Which LoRAs a request may ask for, and which set of files that is.

Callers of `sdxl` and `preprocess` name LoRAs by id (`resolved_loras`); `diffuse` gets files and weights
(`check_resolved`). The bounds of the registry hold for both.
"""

from __future__ import annotations

import math
import re
from collections.abc import Sequence

from intaglio.contract.lora_registry import ResolvedLora
from intaglio.contract.ports import shortest_float32
from intaglio.errors import InvalidRequest
from intaglio.loras.sets import ServedLora, ServedLoras
from intaglio.loras.versions import shown_version
from intaglio.request.request import LoraRequest

__all__ = ["absent_trigger_words", "check_fused", "check_resolved", "resolved_loras"]


def resolved_loras(
    asked: Sequence[LoraRequest], served: ServedLoras, *, most: int
) -> tuple[ResolvedLora, ...]:
    """The files and weights that `asked` stands for, sorted by id; presets become their members.

    Raises:
        InvalidRequest: an unknown id, a LoRA asked for twice or outside its bounds, or more than `most`.
    """
    weights: dict[str, float] = {}
    for index, entry in enumerate(asked):
        field = f"loras[{index}]"
        for lora, asked_weight in _members(entry, served, field=field).items():
            weight = shortest_float32(asked_weight)
            if lora in weights:
                allowed = "each LoRA once, members of presets included"
                raise InvalidRequest(f"{field}.id", f"{lora!r} is asked for twice", allowed=allowed)
            _check_bounds(lora, weight, served.loras[lora], field=field)
            weights[lora] = weight
    if len(weights) > most:
        raise InvalidRequest("loras", f"{len(weights)} LoRAs", allowed=f"at most {most}")
    # At weight 0 a LoRA changes nothing, and its file need not be read.
    return tuple(
        ResolvedLora(id=lora, sha256=served.loras[lora].sha256, weight=weight)
        for lora, weight in sorted(weights.items())
        if weight
    )


def check_resolved(loras: Sequence[ResolvedLora], served: ServedLoras, *, is_resident: bool) -> None:
    """Check files and weights that any caller may have written, as `resolved_loras` would have.

    A version that the last publication retired is allowed, since `preprocess` may have named it before. Where
    exactly this set `is_resident`, no version is looked up, because no file will be read.

    Raises:
        InvalidRequest: an unknown id, a weight outside the bounds of that LoRA, a version that was rejected
            or was never published for it.
    """
    for index, lora in enumerate(loras):
        field = f"loras[{index}]"
        entry = served.loras.get(lora.id)
        if entry is None:
            known = ", ".join(served.loras) or "none (the registry is empty)"
            raise InvalidRequest(f"{field}.id", f"{lora.id!r} is unknown", allowed=known)
        _check_bounds(lora.id, lora.weight, entry, field=field)
        version = shown_version(lora.sha256)
        allowed = f"{shown_version(entry.sha256)}, the version that is served"
        if lora.sha256 in entry.rejected:
            problem = f"version {version} of {lora.id} was rejected by a rollback"
            raise InvalidRequest(f"{field}.sha256", problem, allowed=allowed)
        known_versions = {*entry.versions, *served.retired.get(lora.id, ())}
        if lora.sha256 not in known_versions and not is_resident:
            problem = f"{lora.id} has no version {version} here"
            raise InvalidRequest(f"{field}.sha256", problem, allowed=allowed)


def _check_bounds(lora: str, weight: float, entry: ServedLora, *, field: str) -> None:
    low, high = entry.bounds
    if not low <= weight <= high:
        allowed = f"{low:g} to {high:g}, its bounds in the registry"
        raise InvalidRequest(f"{field}.weight", f"{lora} at {weight:g}", allowed=allowed)


def _members(entry: LoraRequest, served: ServedLoras, *, field: str) -> dict[str, float]:
    """LoRA -> weight of one entry. A preset's weights are multiplied by the weight asked for."""
    if entry.id in served.loras:
        own = served.loras[entry.id].weight
        return {entry.id: own if entry.weight is None else entry.weight}
    if entry.id in served.presets:
        factor = 1.0 if entry.weight is None else entry.weight
        return {lora: factor * weight for lora, weight in served.presets[entry.id].items()}
    known = ", ".join([*served.loras, *served.presets]) or "none (the registry is empty)"
    raise InvalidRequest(f"{field}.id", f"{entry.id!r} is unknown", allowed=known)


def check_fused(asked: Sequence[LoraRequest], fused: Sequence[ResolvedLora]) -> None:
    """Without swapping, a request leaves `loras` out or names exactly the fused set.

    Raises:
        InvalidRequest: another LoRA, another weight, or only a part of the set.
    """
    weights = {lora.id: lora.weight for lora in fused}
    shown = ", ".join(f"{name} at {weight:g}" for name, weight in weights.items())
    shown = shown or "none (no LoRA is fused)"
    for index, lora in enumerate(asked):
        field = f"loras[{index}]"
        if lora.id not in weights:
            allowed = f"absent, or the fused set: {shown}"
            raise InvalidRequest(f"{field}.id", f"{lora.id!r} is unknown", allowed=allowed)
        if lora.weight is not None and not math.isclose(lora.weight, weights[lora.id], abs_tol=1e-6):
            raise InvalidRequest(
                f"{field}.weight", f"{lora.weight:g}", allowed=f"absent, or as fused: {shown}"
            )
    if asked and sorted(lora.id for lora in asked) != sorted(weights):
        raise InvalidRequest("loras", "not the fused set", allowed=f"absent, or all of it once: {shown}")


def absent_trigger_words(prompt: str, loras: Sequence[ResolvedLora], served: ServedLoras) -> tuple[str, ...]:
    """Trigger words of `loras` that `prompt` does not have as whole words, in any case."""
    text = " ".join(prompt.lower().split())
    wanted: dict[str, None] = {}
    for lora in loras:
        wanted |= dict.fromkeys(served.loras[lora.id].trigger_words)
    return tuple(word for word in wanted if not _has_words(text, word))


def _has_words(text: str, words: str) -> bool:
    plain = re.escape(" ".join(words.lower().split()))
    return re.search(rf"(?<!\w){plain}(?!\w)", text) is not None
