"""Which of the server's caches a load hits. Work that a cache saves is missing from what is measured."""

from __future__ import annotations

import itertools
import json
from collections.abc import Sequence
from typing import Any, Final

from intaglio_client.bench.runs import Asked, Run

__all__ = ["cache_lines"]

_NO_REPETITION: Final = (
    "every request has a seed of its own, and no answer is kept: Triton's response cache is off"
)


def cache_lines(run: Run) -> list[str]:
    """What a reader must know, one line a cache."""
    lines = [_NO_REPETITION, _texts(run)]
    controls = {_control_key(one) for one in run.asked if one.parameters.get("controls")}
    if controls:
        lines.append(
            f"control maps: {len(controls)} different for {_count(run, 'controls')} requests; a map that was "
            "made before is taken from a cache of 8"
        )
    loras = _lora_changes(run)
    if loras is not None:
        lines.append(loras)
    return lines


def _texts(run: Run) -> str:
    prompts = [one.prompt for one in run.asked]
    distinct = len(set(prompts))
    negatives = {one.parameters.get("negative_prompt") for one in run.asked} - {None}
    also = f", and {len(negatives)} different negative prompts from the cache" if negatives else ""
    if distinct == len(prompts):
        return f"text embeddings: {distinct} prompts, none twice: the text encoders run for each{also}"
    return (
        f"text embeddings: {distinct} different among {len(prompts)} prompts{also}; the text encoders run "
        "only for those that are not among the last prompts (execution.embedding_cache, 64), so little of "
        "their time is measured. `distinct_prompts: true` makes each prompt new"
    )


def _count(run: Run, name: str) -> int:
    return sum(1 for one in run.asked if one.parameters.get(name))


def _control_key(one: Asked) -> str:
    size = [one.parameters.get("width"), one.parameters.get("height")]
    return f"{size} {one.parameters['controls']}"


def _lora_changes(run: Run) -> str | None:
    sets = [_lora_set(one) for one in run.asked]
    if set(sets) == {"[]"}:
        return None
    changes = sum(1 for before, now in itertools.pairwise(sets) if before != now)
    return (
        f"LoRA sets: {len(set(sets))} different, {changes} changes in the order of sending; a set that is "
        "resident is not applied again, and the queue lets requests of one set follow one another"
    )


def _lora_set(one: Asked) -> str:
    found: Sequence[Any] = one.parameters.get("loras") or ()
    return json.dumps(sorted([lora.id, lora.weight] for lora in found))
