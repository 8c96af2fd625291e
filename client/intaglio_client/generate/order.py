"""What one call of `intaglio generate` asks for: a prompt with parameters, or a picture again."""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, cast

from intaglio.contract.presets import QUALITY_INPUTS
from intaglio.contract.schedulers import scheduler_from_name
from intaglio.errors import InvalidRequest
from intaglio_client.controls import POSE
from intaglio_client.generate.characters import Character
from intaglio_client.image import Image, model_differences
from intaglio_client.names import without_values
from intaglio_client.parameters import Lora, Parameters
from intaglio_client.repetition import Repetition, repetition_of

__all__ = ["Order", "Question", "in_character", "question_of"]

_CUSTOM: Final = frozenset({"timesteps", "sigmas"})
"""Custom steps, which say their number themselves."""
_HOW: Final = frozenset({"output_format", "priority", "queue_timeout"})
"""Parameters that change no picture."""
_log = logging.getLogger(__name__)
Images = tuple[Image, ...]


@dataclass(frozen=True, slots=True)
class Order:
    """The options, read."""

    prompt: str | None
    given: Mapping[str, Any]
    """Parameters by our names, and values for all controls by diffusers' names."""
    like: Path | None
    images: tuple[Path, ...]


@dataclass(frozen=True, slots=True)
class Question:
    """What the client is asked."""

    prompt: str
    parameters: Parameters
    picked: Callable[[Images], Images]
    """Of the images that are answered, those that were asked for. Logs what they differ in."""
    only_one: bool = False
    """Whether one is picked, however many are answered."""

    @property
    def count(self) -> int:
        """How many images will be picked."""
        number = self.parameters.get("num_images") or 1
        return 1 if self.only_one else number


def in_character(
    character: Character, prompt: str | None, given: dict[str, Any]
) -> tuple[str, dict[str, Any]]:
    """Prompt and parameters of the character. Parameters in `given` count more than the character's.

    Raises:
        InvalidRequest: there is no prompt.
    """
    if prompt is None:
        allowed = "a prompt with --character: what the character does"
        raise InvalidRequest("prompt", "missing", allowed=allowed)
    own: dict[str, Any] = {"loras": [Lora(lora, weight) for lora, weight in character.loras.items()]}
    if character.negative_prompt is not None:
        own["negative_prompt"] = character.negative_prompt
    loras = [*own["loras"], *given.get("loras", [])]
    return character.prompt_of(prompt), {**own, **given, "loras": loras}


def question_of(order: Order) -> Question:
    """What to ask the client.

    Raises:
        InvalidRequest: there is no prompt, or the picture to repeat says nothing of how it was made.
    """
    if order.like is not None:
        return _question_like(order, order.like)
    if order.images:
        allowed = "beside --like IMAGE; --control type=TYPE,image=FILE for a new image"
        raise InvalidRequest("image", "given without --like", allowed=allowed)
    if order.prompt is None:
        raise InvalidRequest("prompt", "missing", allowed="a prompt, or --like IMAGE")
    return Question(order.prompt, cast(Parameters, dict(order.given)), picked=lambda made: made)


def _question_like(order: Order, like: Path) -> Question:
    """The image `like` again, changed by the order's prompt and parameters."""
    original = repetition_of(like, [path.read_bytes() for path in order.images])
    if _is_unchanged(order, original):
        how = {name: value for name, value in order.given.items() if name in _HOW}
        same = cast(Parameters, {**original.parameters, **how})
        return Question(original.prompt, same, picked=lambda made: (original.picked(made),), only_one=True)
    parameters = _without_replaced(original.parameters, order.given)
    controls = without_values(parameters["controls"] or (), order.given)
    if POSE in order.given:  # another pose takes the place of the original's
        controls = [control for control in controls if control.pose is None]
    changed = cast(Parameters, {**parameters, "controls": controls, **order.given})
    prompt = original.prompt if order.prompt is None else order.prompt
    same_loras = order.prompt is None and "loras" not in order.given

    def picked(made: Images) -> Images:
        for difference in model_differences(original.metadata, made[0].metadata, same_loras=same_loras):
            _log.warning("%s, so more than what you asked for may change", difference)
        return made

    return Question(prompt, changed, picked=picked)


def _is_unchanged(order: Order, original: Repetition) -> bool:
    """Whether nothing is asked for but the picture itself."""
    same_format = order.given.get("output_format") == original.metadata.get("output_format")
    return order.prompt is None and same_format and order.given.keys() <= _HOW


def _without_replaced(parameters: Parameters, given: Mapping[str, Any]) -> Parameters:
    """`parameters` of a picture without those that `given` takes the place of."""
    replaced: set[str] = set()
    if "preset" in given:  # it says itself how well to draw
        replaced |= set(QUALITY_INPUTS)
    if "steps" in given or "schedule" in given:
        replaced |= _CUSTOM
    if not _CUSTOM.isdisjoint(given):
        replaced |= {"steps", "schedule", *_CUSTOM}
    named = scheduler_from_name(given.get("scheduler", ""))
    if named is not None and named.schedule is not None and not named.is_default:
        replaced |= {"schedule", *_CUSTOM}
    kept = {name: value for name, value in parameters.items() if name not in replaced}
    return cast(Parameters, kept)
