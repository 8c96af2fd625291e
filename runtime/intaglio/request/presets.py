"""Presets in a request: what they make of its texts, and values for what the caller left out.

A value comes from the first of these that has one: the caller, the quality preset that the request names, the
few-step method of a LoRA that it asks for or of the build, the deployment's defaults. Texts are combined: the
scene goes to the prompt, the style around both; the negative prompt is the caller's, then the negative
preset's, then the style's.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Final

from intaglio.contract.models import SDXL
from intaglio.contract.port_values import tensor_from_value
from intaglio.contract.ports import Tensors
from intaglio.contract.presets import KINDS, Presets, with_text
from intaglio.errors import InvalidRequest
from intaglio.request.texts import read_bytes, read_text
from intaglio.validation_errors import nearest

__all__ = ["AskedPresets", "Source", "asked_presets", "completed"]

_LONGEST_ID: Final = 64
_CUSTOM: Final = frozenset({"timesteps", "sigmas"})
"""Inputs that state every step of the trajectory."""
_TRAJECTORY: Final = _CUSTOM | {"steps", "schedule"}
"""Inputs of which one that a caller states makes a custom trajectory from elsewhere meaningless, and the
other way round.
"""
_OF_CONTROLS: Final = frozenset({"control_every"})
"""Inputs that mean nothing without controls; a caller who states one without any is told so."""
_OF_THE_SOLVER: Final = frozenset({"schedule", "eta", "sparse_begin", "sparse_every"})
"""Inputs whose values a source chose for its own scheduler."""


@dataclass(frozen=True, slots=True)
class Source:
    """Where values for absent inputs come from."""

    name: str
    """For people: `preset draft`, `method lcm`."""
    values: Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class AskedPresets:
    """What a request names, and what that stands for."""

    ids: Mapping[str, str | None]
    """Input -> id, or None where the request names none."""
    presets: Presets

    @property
    def quality(self) -> Source | None:
        """The values of the quality preset."""
        preset = self.ids["preset"]
        if preset is None:
            return None
        return Source(f"preset {preset}", self.presets.quality[preset].values)

    def prompt(self, text: str) -> str:
        """The caller's prompt in its scene and its style."""
        style, scene = self.ids["style"], self.ids["scene"]
        if scene is not None:
            text = with_text(text, self.presets.scenes[scene])
        template = None if style is None else self.presets.styles[style].prompt
        return text if template is None else with_text(text, template)

    def negative_prompt(self, text: str | None) -> str | None:
        """All negative prompts; None where there is none."""
        parts = [text, *self._negatives()]
        return ", ".join(part for part in parts if part) or text

    def _negatives(self) -> Iterator[str | None]:
        style, negative = self.ids["style"], self.ids["negative_preset"]
        yield None if negative is None else self.presets.negatives[negative]
        yield None if style is None else self.presets.styles[style].negative_prompt


def asked_presets(found: Tensors, presets: Presets) -> AskedPresets:
    """What the request names.

    Raises:
        InvalidRequest: an id that is unknown.
    """
    ids: dict[str, str | None] = {}
    for name, part in KINDS.items():
        ids[name] = _id(found, name, getattr(presets, part)) if name in found else None
    return AskedPresets(ids, presets)


def _id(found: Tensors, name: str, known: Mapping[str, Any]) -> str:
    asked = read_text(found, name, most=_LONGEST_ID)
    if asked not in known:
        allowed = ", ".join(known) or "absent: the deployment has none"
        raise InvalidRequest(name, f"{asked!r} is unknown{nearest(asked, known)}", allowed=allowed)
    return asked


def completed(found: Tensors, sources: list[Source]) -> tuple[Tensors, dict[str, str]]:
    """`found` with values for absent inputs; the first source that has one counts.

    A value is left out where what was stated before leaves it no meaning: a custom trajectory beside a number
    of steps, the schedule of another scheduler, or how often ControlNets run where there are none.

    Returns: the tensors, and the source's name for each input that was filled in.
    """
    tensors = dict(found)
    origins: dict[str, str] = {}
    for source in sources:
        own = {name: tensor_from_value(SDXL.input(name), value) for name, value in source.values.items()}
        left_out = _superseded(tensors, own)
        for name, tensor in own.items():
            if name not in tensors and name not in left_out:
                tensors[name] = tensor
                origins[name] = source.name
    return tensors, origins


def _superseded(stated: Tensors, own: Tensors) -> frozenset[str]:
    """The inputs to which the tensors `stated` leave no meaning in a source that has its `own`."""
    found: frozenset[str] = frozenset()
    if _TRAJECTORY & set(stated):
        found |= _CUSTOM
    if _CUSTOM & set(stated):
        found |= _TRAJECTORY
    if not _has_controls(stated):
        found |= _OF_CONTROLS
    has_both = "scheduler" in stated and "scheduler" in own
    if has_both and read_bytes(stated["scheduler"][0], field="scheduler") != own["scheduler"][0]:
        found |= _OF_THE_SOLVER
    return found


def _has_controls(stated: Tensors) -> bool:
    if "controls" not in stated:
        return False
    text = read_bytes(stated["controls"][0], field="controls").strip()
    return text not in (b"", b"[]")
