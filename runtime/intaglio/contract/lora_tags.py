r"""LoRAs in the words of a prompt, as AUTOMATIC1111's webui writes them.

    a fox <lora:night:0.8>      the LoRA or preset `night` at 0.8
    a fox <lora:night>          at the registry's weight
    a fox \<lora:night:0.8>     these words themselves; the backslash goes away

A tag is no word: it is taken out before the prompt is encoded. What looks like a tag and is none is refused,
so that none is ever encoded as words. That includes a tag that appears only after another was taken out.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Final

from intaglio.contract.models import LARGEST_LORA_WEIGHT
from intaglio.errors import InvalidRequest

__all__ = ["LoraTag", "TaggedText", "split_lora_tags"]

_ALLOWED: Final = r"<lora:ID> or <lora:ID:WEIGHT>; \<lora: for these words themselves"
# A run of backslashes is tried from its first one only, so a long one takes no square time. One before `<`
# belongs to what follows, so that the words stay the same once the tags between them are taken out.
_TAG: Final = re.compile(
    r"(?<!\\)(?P<slashes>\\*+)<(?P<kind>\s*+(?:lora|lyco|hypernet)\s*+):"
    r"(?P<rest>(?:[^<>\\]|\\++(?!<))*+)(?P<end>>?)",
    re.IGNORECASE,
)
_ESCAPED: Final = ">"
"""Stands for an escaped tag while the words are searched again: no tag begins or goes on over it."""
_LONGEST_SHOWN: Final = 60


@dataclass(frozen=True, slots=True)
class LoraTag:
    """One tag; `weight` None is the registry's."""

    id: str
    weight: float | None


@dataclass(frozen=True, slots=True)
class TaggedText:
    """A prompt without its tags, and the tags."""

    words: str
    tags: tuple[LoraTag, ...] = ()
    untagged: str = ""
    """The prompt without its tags that can be sent again: escaped tags are still escaped."""


def split_lora_tags(text: str, *, field: str = "prompt") -> TaggedText:
    """The words of `text` and its LoRAs, in their order.

    Raises:
        InvalidRequest: naming `field`: a tag that is not closed, has no id, a weight that no LoRA may have or
            more than one weight, or names a hypernetwork; or a tag that appears once others are taken out.
    """
    words: list[str] = []
    untagged: list[str] = []
    searched: list[str] = []
    tags: list[LoraTag] = []
    position = 0
    for match in _TAG.finditer(text):
        slashes = match["slashes"]
        before = text[position : match.start()] + slashes
        position = match.end()
        untagged.append(before)
        if len(slashes) % 2:  # the last backslash belongs to the tag; pairs of them are the prompt's own
            tag = match[0].removeprefix(slashes)
            untagged.append(tag)
            words += [before[:-1], tag]
            searched += [before[:-1], _ESCAPED]
        else:
            tags.append(_tag(match, field))
            words.append(before)
            searched.append(before)
    for pieces in (words, untagged, searched):
        pieces.append(text[position:])
    if appeared := _TAG.search("".join(searched)):
        problem = f"{_shown(appeared)!r} appears once other tags are taken out"
        raise InvalidRequest(field, problem, allowed=_ALLOWED)
    return TaggedText("".join(words), tuple(tags), "".join(untagged))


def _shown(match: re.Match[str]) -> str:
    text = match[0].lstrip("\\")
    return text if len(text) <= _LONGEST_SHOWN else text[:_LONGEST_SHOWN] + "…"


def _tag(match: re.Match[str], field: str) -> LoraTag:
    shown = _shown(match)
    kind = match["kind"].strip()
    if kind != match["kind"]:
        raise InvalidRequest(field, f"{shown!r} has white space beside {kind!r}", allowed=_ALLOWED)
    if kind.lower() == "hypernet":
        raise InvalidRequest(field, f"{shown!r}: hypernetworks are not supported", allowed=_ALLOWED)
    if not match["end"]:
        raise InvalidRequest(field, f"{shown!r} is not closed", allowed=_ALLOWED)
    name, *weights = (part.strip() for part in match["rest"].split(":"))
    if not name:
        raise InvalidRequest(field, f"{shown!r} names no LoRA", allowed=_ALLOWED)
    if len(weights) > 1:
        raise InvalidRequest(field, f"{shown!r} has {len(weights)} weights", allowed=_ALLOWED)
    weight = _weight(weights[0], field, shown) if weights else None
    return LoraTag(name, weight)


def _weight(text: str, field: str, shown: str) -> float:
    allowed = f"a weight of {-LARGEST_LORA_WEIGHT:g} to {LARGEST_LORA_WEIGHT:g}: {_ALLOWED}"
    try:
        weight = float(text)
    except ValueError:
        raise InvalidRequest(field, f"{shown!r}: {text!r} is not a number", allowed=allowed) from None
    if not abs(weight) <= LARGEST_LORA_WEIGHT:  # false for NaN too
        raise InvalidRequest(field, f"{shown!r}: {text} is out of range", allowed=allowed)
    return weight
