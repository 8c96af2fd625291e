"""Which LoRAs a request may ask for, and which set of files that is.

Callers of `sdxl` and `preprocess` name LoRAs by id (`resolved_loras`); `diffuse` gets files and weights
(`check_resolved`). The bounds of the registry hold for both.
"""

from __future__ import annotations

import math
import re
from collections.abc import Sequence
from dataclasses import dataclass

from intaglio.contract.lora_registry import ResolvedLora
from intaglio.contract.lora_tags import LoraTag
from intaglio.contract.ports import shortest_float32
from intaglio.errors import InvalidRequest, SwapFailed
from intaglio.loras.sets import ServedLora, ServedLoras
from intaglio.loras.versions import shown_version
from intaglio.request.request import LoraRequest

__all__ = [
    "AskedLora",
    "absent_trigger_words",
    "asked_loras",
    "check_fused",
    "check_resolved",
    "resolved_loras",
]


@dataclass(frozen=True, slots=True)
class AskedLora:
    """A LoRA or preset that a request names, in its prompt or in `loras`; `weight` None is the registry's."""

    id: str
    weight: float | None
    field: str
    """`prompt`, or `loras[0]`."""

    @property
    def in_prompt(self) -> bool:
        """Whether a tag of the prompt names it."""
        return self.field == "prompt"

    @property
    def id_field(self) -> str:
        """The field that an error about its id names."""
        return self.field if self.in_prompt else f"{self.field}.id"

    @property
    def weight_field(self) -> str:
        """The field that an error about its weight names."""
        return self.field if self.in_prompt else f"{self.field}.weight"


def asked_loras(tags: Sequence[LoraTag], listed: Sequence[LoraRequest]) -> list[AskedLora]:
    """The LoRAs that the prompt's `tags` name, then the `listed` ones of the input `loras`."""
    found = [AskedLora(tag.id, tag.weight, "prompt") for tag in tags]
    for index, entry in enumerate(listed):
        found.append(AskedLora(entry.id, entry.weight, f"loras[{index}]"))
    return found


def resolved_loras(asked: Sequence[AskedLora], served: ServedLoras, *, most: int) -> tuple[ResolvedLora, ...]:
    """The files and weights that `asked` stands for, sorted by id; presets become their members.

    The prompt and `loras` may name the same LoRA with the same weight: a picture's metadata have both, and
    can be sent again.

    Raises:
        InvalidRequest: an unknown id, a LoRA asked for twice or outside its bounds, or more than `most`.
    """
    weights: dict[str, float] = {}
    origins: dict[str, AskedLora] = {}
    for one in asked:
        for lora, asked_weight in _members(one, served).items():
            weight = shortest_float32(asked_weight)
            if lora in weights:
                _check_again(lora, (weights[lora], origins[lora]), (weight, one))
                continue
            _check_bounds(lora, weight, served.loras[lora], field=one.weight_field)
            weights[lora] = weight
            origins[lora] = one
    if len(weights) > most:
        raise InvalidRequest("loras", f"{len(weights)} LoRAs", allowed=f"at most {most}")
    # At weight 0 a LoRA changes nothing, and its file need not be read.
    return tuple(
        ResolvedLora(id=lora, sha256=served.loras[lora].sha256, weight=weight)
        for lora, weight in sorted(weights.items())
        if weight
    )


def _check_again(lora: str, first: tuple[float, AskedLora], again: tuple[float, AskedLora]) -> None:
    """Raise InvalidRequest unless `lora` is the same LoRA, once in the prompt and once in `loras`."""
    (first_weight, first_one), (weight, one) = first, again
    if first_one.in_prompt == one.in_prompt:
        allowed = "each LoRA once, members of presets included"
        raise InvalidRequest(one.id_field, f"{lora!r} is asked for twice", allowed=allowed)
    if first_weight != weight:
        problem = f"{lora} at {weight:g}, and at {first_weight:g} in the prompt"
        raise InvalidRequest(
            one.weight_field, problem, allowed="the same weight in both, or only one of them"
        )


def check_resolved(loras: Sequence[ResolvedLora], served: ServedLoras, *, is_resident: bool) -> None:
    """Check files and weights that any caller may have written, as `resolved_loras` would have.

    A version that the last publication retired is allowed, since `preprocess` may have named it before. Where
    exactly this set `is_resident`, no version is looked up, because no file will be read.

    Raises:
        InvalidRequest: an unknown id, a weight outside the bounds of that LoRA, a version that was rejected
            or was never published for it.
        SwapFailed: the last publication removed the LoRA or rejected the version. The caller of `sdxl` named
            neither file nor version, so the same request may be sent again.
    """
    for index, lora in enumerate(loras):
        field = f"loras[{index}]"
        entry = served.loras.get(lora.id)
        just_retired = lora.sha256 in served.retired.get(lora.id, ())
        if just_retired and (entry is None or lora.sha256 in entry.rejected):
            what = f"{lora.id}, which was removed" if entry is None else f"a version of {lora.id} rolled back"
            raise SwapFailed(f"loras: cannot apply {what} while the request waited; send it again")
        if entry is None:
            known = ", ".join(served.loras) or "none (the registry is empty)"
            raise InvalidRequest(f"{field}.id", f"{lora.id!r} is unknown", allowed=known)
        _check_bounds(lora.id, lora.weight, entry, field=f"{field}.weight")
        version = shown_version(lora.sha256)
        allowed = f"{shown_version(entry.sha256)}, the version that is served"
        if lora.sha256 in entry.rejected:
            problem = f"version {version} of {lora.id} was rejected by a rollback"
            raise InvalidRequest(f"{field}.sha256", problem, allowed=allowed)
        is_known = just_retired or lora.sha256 in entry.versions
        if not is_known and not is_resident:
            problem = f"{lora.id} has no version {version} here"
            raise InvalidRequest(f"{field}.sha256", problem, allowed=allowed)


def _check_bounds(lora: str, weight: float, entry: ServedLora, *, field: str) -> None:
    low, high = entry.bounds
    if not low <= weight <= high:
        allowed = f"{low:g} to {high:g}, its bounds in the registry"
        raise InvalidRequest(field, f"{lora} at {weight:g}", allowed=allowed)


def _members(one: AskedLora, served: ServedLoras) -> dict[str, float]:
    """LoRA -> weight of one entry. A preset's weights are multiplied by the weight asked for."""
    if one.id in served.loras:
        own = served.loras[one.id].weight
        return {one.id: own if one.weight is None else one.weight}
    if one.id in served.presets:
        factor = 1.0 if one.weight is None else one.weight
        return {lora: factor * weight for lora, weight in served.presets[one.id].items()}
    known = ", ".join([*served.loras, *served.presets]) or "none (the registry is empty)"
    raise InvalidRequest(one.id_field, f"{one.id!r} is unknown", allowed=known)


def check_fused(asked: Sequence[AskedLora], fused: Sequence[ResolvedLora]) -> None:
    """Without swapping, a request names no LoRA or exactly the fused set.

    Raises:
        InvalidRequest: another LoRA, another weight, or only a part of the set.
    """
    weights = {lora.id: lora.weight for lora in fused}
    shown = ", ".join(f"{name} at {weight:g}" for name, weight in weights.items())
    shown = shown or "none (no LoRA is fused)"
    named: list[tuple[str, bool]] = []
    for one in asked:
        if one.id not in weights:
            allowed = f"absent, or the fused set: {shown}"
            raise InvalidRequest(one.id_field, f"{one.id!r} is unknown", allowed=allowed)
        if one.weight is not None and not math.isclose(one.weight, weights[one.id], abs_tol=1e-6):
            raise InvalidRequest(one.weight_field, f"{one.weight:g}", allowed=f"absent, or as fused: {shown}")
        named.append((one.id, one.in_prompt))
    is_whole = {lora for lora, _ in named} == set(weights) and len(set(named)) == len(named)
    if named and not is_whole:
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
