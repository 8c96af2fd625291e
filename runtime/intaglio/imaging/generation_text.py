"""How a picture was made, in the text that AUTOMATIC1111's webui writes and civitai, ComfyUI's nodes and many
viewers read:

    a fox, night <lora:night:0.8>
    Negative prompt: blurry
    Steps: 20, Sampler: Euler a, CFG scale: 7, Seed: 5, Size: 832x1216, Model: sdxl, Lora hashes: "night: 0123456789ab", Version: intaglio 0.1.0

The text follows `create_infotext` and `quote` of the webui (modules/processing.py, modules/infotext_utils.py).
It holds what those readers know; everything else is in our own JSON.
"""  # noqa: E501  (the format's last line is one line)

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from pathlib import PurePath
from typing import Any, Final

from pydantic import BaseModel, Field, ValidationError

from intaglio.contract.lora_tags import split_lora_tags
from intaglio.contract.models import Schedule
from intaglio.contract.schedulers import OWN_SCHEDULE, SCHEDULERS, SCHEDULES, scheduler_from_name
from intaglio.errors import InvalidRequest

__all__ = ["generation_text"]

_NEGATIVE: Final = "Negative prompt:"
_TAG_START: Final = re.compile(r"<(?=\w+:)")
_MARKS: Final = re.compile(
    r"Negative prompt(?=:)|^[^\S\n]*+(?:Steps|Template|Negative Template)(?=:)", re.MULTILINE
)
"""Words that readers take for the beginning of another part.

White space is searched within one line. If it could cross lines, many empty lines would take square time.
"""
_QUOTED: Final = re.compile(r"[,:\n]")
"""A value with one of these stands in quotes."""

_CUSTOM: Final = "Custom"


class _Lora(BaseModel):
    id: str
    weight: float


class _Model(BaseModel):
    base: str = ""


class _Described(BaseModel):
    """The part of a picture's metadata that the text holds."""

    prompt: str
    added_words: list[str] = Field(default_factory=list)
    negative_prompt: str | None = None
    steps: int
    scheduler: str
    schedule: Schedule | None = None
    timesteps: list[float] | None = None
    sigmas: list[float] | None = None
    guidance_scale: float
    clip_skip: int = 0
    seed: int
    width: int
    height: int
    num_images: int = 1
    image_index: int = 0
    loras: list[_Lora] = Field(default_factory=list)
    lora_hashes: dict[str, str] = Field(default_factory=dict)
    model: _Model = _Model()
    intaglio: str = ""


def generation_text(metadata: Mapping[str, Any]) -> str | None:
    """The text of one picture; None where `metadata` are not those of a request."""
    try:
        made = _Described.model_validate(metadata)
        prompt = _prompt(made)
        negative = _words(made.negative_prompt or "")
    except (ValidationError, InvalidRequest):
        return None
    lines = [prompt]
    if negative:
        lines.append(f"{_NEGATIVE} {negative}")
    lines.append(", ".join(f"{name}: {_quoted(value)}" for name, value in _settings(made).items()))
    return "\n".join(lines)


def _prompt(made: _Described) -> str:
    """The words as they were encoded, and a tag for every LoRA that was applied.

    The request's own tags go: they may name presets, and leave out weights.
    """
    words = ", ".join((_words(made.prompt), *made.added_words))
    tags = [f"<lora:{lora.id}:{lora.weight:g}>" for lora in made.loras]
    return " ".join([words, *tags])


def _words(text: str) -> str:
    """`text` without tags, so that a reader finds the prompts' borders and no LoRA in the words.

    The format has no way to write such words literally. CLIP's tokens ignore the white space that is added.
    """
    words = _TAG_START.sub("< ", split_lora_tags(text).words)
    words = _MARKS.sub(r"\g<0> ", words)
    return "\n".join(line.strip() for line in words.split("\n")).strip()


def _settings(made: _Described) -> dict[str, str]:
    scheduler = scheduler_from_name(made.scheduler)
    settings = {
        "Steps": str(made.steps),
        "Sampler": made.scheduler if scheduler is None else SCHEDULERS[scheduler.scheduler].a1111,
        "CFG scale": f"{made.guidance_scale:g}",
        "Seed": str(made.seed),
        "Size": f"{made.width}x{made.height}",
    }
    if schedule := _schedule_label(made):
        settings["Schedule type"] = schedule
    if made.model.base:
        settings["Model"] = _model_name(made.model.base)
    if made.clip_skip:
        # Readers count from the last layer, which is 1; SDXL without a skip reads layer 2.
        settings["Clip skip"] = str(made.clip_skip + 2)
    if made.num_images > 1:  # one seed draws the noise of all images of a request
        settings |= {"Batch size": str(made.num_images), "Batch pos": str(made.image_index)}
    if made.lora_hashes:
        settings["Lora hashes"] = ", ".join(f"{lora}: {digest}" for lora, digest in made.lora_hashes.items())
    settings["Version"] = f"intaglio {made.intaglio}".strip()
    return settings


def _schedule_label(made: _Described) -> str | None:
    """The label of the schedule; None where readers need none.

    Some solvers' labels mean a schedule where none is stated ("DPM++ 2M" is Karras), so theirs is always
    stated. Custom steps have no label that readers know.
    """
    if made.schedule is not None:
        return SCHEDULES[made.schedule].a1111
    scheduler = scheduler_from_name(made.scheduler)
    if scheduler is None or not SCHEDULERS[scheduler.scheduler].placed:
        return None
    if made.timesteps or made.sigmas:
        return _CUSTOM
    return SCHEDULES[OWN_SCHEDULE].a1111


def _model_name(base: str) -> str:
    """The name of a checkpoint's file or repository, without what would need quotes."""
    name = PurePath(base).name.removesuffix(".safetensors").removesuffix(".ckpt")
    return _QUOTED.sub("_", name.replace('"', "_"))


def _quoted(value: str) -> str:
    return json.dumps(value, ensure_ascii=False) if _QUOTED.search(value) else value
