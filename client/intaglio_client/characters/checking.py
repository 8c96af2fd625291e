"""What is wrong with the characters that are enrolled."""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Literal

from intaglio.contract.identity import Identity
from intaglio.errors import ConfigError
from intaglio.faces.enrolled import EnrolledCharacter, EnrolledFolder
from intaglio.faces.likeness import scores_of
from intaglio.faces.opening import reader_key
from intaglio.faces.served import criterion_of
from intaglio_client.characters.enrolling import unlike_the_others

__all__ = ["Closeness", "Found", "check_enrolled", "closeness", "read_all"]


@dataclass(frozen=True, slots=True)
class Found:
    """Something that is wrong, or may be."""

    name: str
    state: Literal["warning", "refused"]
    detail: str


@dataclass(frozen=True, slots=True)
class Closeness:
    """How near the references of a character are to each other, in the deployment's measure."""

    name: str
    references: int
    nearest: float
    farthest: float
    """Of the reference that is the least like the others."""


def closeness(character: EnrolledCharacter, setting: Identity) -> Closeness | None:
    """Each reference compared with the others; None where there is only one."""
    values = []
    for reference in character.references:
        others = [one.vector for one in character.references if one.sha256 != reference.sha256]
        if not others:
            return None
        scores = scores_of(reference.read_face, others)
        values.append(scores.value(setting.measure, setting.reference))
    values.sort(reverse=setting.measure == "cosine")
    return Closeness(character.name, len(values), round(values[0], 6), round(values[-1], 6))


def read_all(setting: Identity) -> tuple[dict[str, EnrolledCharacter], list[Found]]:
    """Every character that can be read, and what is wrong with the others.

    Raises:
        ConfigError: the folder is open to others, or a network's file is missing.
    """
    folder = EnrolledFolder(setting.characters)
    found: dict[str, EnrolledCharacter] = {}
    problems = []
    if folder.path.is_dir():
        folder.check()
    key = reader_key(setting)
    for name in folder.names():
        try:
            found[name] = folder.read(name, key=key, measure=setting.measure)
        except ConfigError as error:
            problems.append(Found(name, "refused", str(error)))
    return found, problems


def check_enrolled(characters: Mapping[str, EnrolledCharacter], setting: Identity) -> Iterator[Found]:
    """References that are not like the others of their character, and characters that are too alike."""
    for name, character in characters.items():
        for reference in character.references:
            text = unlike_the_others(reference, character, setting)
            if text is not None:
                yield Found(name, "warning", f"{name}: {text}")
    for (name, one), (other, two) in itertools.combinations(characters.items(), 2):
        mistaken = [
            reference.name
            for reference in two.references
            if criterion_of(setting, one).is_met(scores_of(reference.read_face, one.embeddings))
        ]
        if mistaken:
            yield Found(name, "warning", f"{name}: {other}'s {mistaken[0]} counts as {name}, too")
