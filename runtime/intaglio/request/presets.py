"""Presets in a request: what they make of its texts, and values for what the caller left out.

A value comes from the first of these that has one: the caller, the quality preset that the request names, the
few-step method of a LoRA that it asks for or of the build, the deployment's defaults. With the preset `none`
only the caller and the deployment's defaults count, without its default preset. Texts are combined: the scene
goes to the prompt, the style around both; the negative prompt is the caller's, then the negative preset's,
then the style's.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

from intaglio.contract.models import SDXL
from intaglio.contract.port_values import tensor_from_value
from intaglio.contract.ports import Tensors
from intaglio.contract.presets import KINDS, NO_PRESET, Presets, with_text
from intaglio.errors import InvalidRequest
from intaglio.request.texts import read_choice, read_json, read_text
from intaglio.validation_errors import nearest

__all__ = ["AskedPresets", "Source", "asked_presets", "completed"]

_LONGEST_ID: Final = 64
_CUSTOM: Final = frozenset({"timesteps", "sigmas"})
"""Inputs that state every step of the trajectory."""
_TRAJECTORY: Final = _CUSTOM | {"steps", "schedule"}
"""Inputs of which one that a caller states makes a custom trajectory from elsewhere meaningless, and the
other way round.
"""
_STATES_STEPS: Final = _CUSTOM | {"steps"}
_THINNING: Final = frozenset({"sparse_begin", "sparse_every"})
"""Inputs that take steps out; a source chose them for its own number of steps."""
_OF_CONTROLS: Final = frozenset({"control_every"})
"""Inputs that mean nothing without controls; a caller who states one without any is told so."""
_OF_THE_SOLVER: Final = _THINNING | {"schedule", "eta"}
"""Inputs whose values a source chose for its own scheduler, or without one for the deployment's."""


@dataclass(frozen=True, slots=True)
class Source:
    """Where values for absent inputs come from."""

    name: str
    """For people: `preset draft`, `method lcm`."""
    values: Mapping[str, Any]
    schedulers: tuple[str, ...] = ()
    """Other schedulers that the values suit as well as the source's own."""

    def suits(self, scheduler: str, default: str) -> bool:
        """Whether the values were chosen for `scheduler`; `default` is the deployment's."""
        return scheduler in (self.values.get("scheduler", default), *self.schedulers)


@dataclass(frozen=True, slots=True)
class AskedPresets:
    """What a request names, and what that stands for."""

    ids: Mapping[str, str | None]
    """Input -> id, or None where the request names none."""
    presets: Presets

    @property
    def fills(self) -> bool:
        """Whether presets and methods give values to absent inputs."""
        return self.ids["preset"] != NO_PRESET

    @property
    def quality(self) -> Source | None:
        """The values of the quality preset."""
        preset = self.ids["preset"]
        if preset is None or not self.fills:
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
        known = (*getattr(presets, part), NO_PRESET) if name == "preset" else tuple(getattr(presets, part))
        ids[name] = _id(found, name, known) if name in found else None
    return AskedPresets(ids, presets)


def _id(found: Tensors, name: str, known: Sequence[str]) -> str:
    asked = read_text(found, name, most=_LONGEST_ID)
    if asked not in known:
        allowed = ", ".join(known) or "absent: the deployment has none"
        raise InvalidRequest(name, f"{asked!r} is unknown{nearest(asked, known)}", allowed=allowed)
    return asked


def completed(found: Tensors, sources: Sequence[Source], *, scheduler: str) -> tuple[Tensors, dict[str, str]]:
    """`found` with values for absent inputs; the first source that has one counts.

    A value is left out where what was stated before leaves it no meaning: a custom trajectory beside a number
    of steps, how to thin another source's steps, the schedule of another scheduler, or how often ControlNets
    run where there are none. `scheduler` is the deployment's default.

    Returns: the tensors, and the source's name for each input that was filled in.

    Raises:
        InvalidRequest: `scheduler` in `found` is unknown.
    """
    tensors = dict(found)
    origins: dict[str, str] = {}
    in_force = _scheduler_in_force(found, sources, scheduler)
    always: frozenset[str] = frozenset() if _has_controls(found) else _OF_CONTROLS
    for source in sources:
        left_out = always | _superseded(tensors)
        if not source.suits(in_force, scheduler):
            left_out |= _OF_THE_SOLVER
        for name, value in source.values.items():
            if name not in tensors and name not in left_out:
                tensors[name] = tensor_from_value(SDXL.input(name), value)
                origins[name] = source.name
    return tensors, origins


def _scheduler_in_force(found: Tensors, sources: Sequence[Source], default: str) -> str:
    """The scheduler that the request will have: the caller's, the first source's, or the `default`."""
    if "scheduler" in found:
        return read_choice(found, SDXL.input("scheduler"))
    stated = [source.values["scheduler"] for source in sources if "scheduler" in source.values]
    return str(stated[0]) if stated else default


def _superseded(stated: Iterable[str]) -> frozenset[str]:
    """The inputs of a source to which the inputs `stated` before it leave no meaning."""
    names = frozenset(stated)
    found: frozenset[str] = frozenset()
    if _TRAJECTORY & names:
        found |= _CUSTOM
    if _CUSTOM & names:
        found |= _TRAJECTORY
    if _STATES_STEPS & names:
        found |= _THINNING
    return found


def _has_controls(found: Tensors) -> bool:
    """Whether the caller asks for controls; what cannot be read is refused by its own name later."""
    if "controls" not in found:
        return False
    try:
        return bool(read_json(found, "controls", allowed="a JSON list"))
    except InvalidRequest:
        return True
