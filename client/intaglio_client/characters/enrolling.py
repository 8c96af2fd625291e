"""Photographs -> the references of a character."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

from intaglio.contract.config import Deployment
from intaglio.contract.identity import Identity
from intaglio.errors import ConfigError, InvalidRequest
from intaglio.faces.enrolled import EnrolledCharacter, EnrolledFolder, EnrolledReference
from intaglio.faces.found import ReadFace
from intaglio.faces.likeness import check_threshold, scores_of
from intaglio.faces.opening import open_reader, reader_key
from intaglio.faces.served import criterion_of
from intaglio.imaging.images import decode_image, read_encoded

__all__ = ["Enrolled", "Enroller", "Photograph", "identity_of", "unlike_the_others"]


@dataclass(frozen=True, slots=True)
class Photograph:
    """What became of one photograph."""

    path: Path
    state: Literal["ok", "warning", "refused"]
    detail: str
    reference: EnrolledReference | None = field(default=None, repr=False)


@dataclass(frozen=True, slots=True)
class Enrolled:
    """What a call enrolled."""

    photographs: tuple[Photograph, ...]
    character: EnrolledCharacter | None = field(repr=False)
    """None where no photograph could be taken, so that nothing was written."""


def identity_of(deployment: Deployment) -> Identity:
    """How `deployment` reads faces.

    Raises:
        ConfigError: it does not.
    """
    if deployment.identity is None:
        path = deployment.folder / f"{deployment.name}.yaml"
        raise ConfigError(f"{path}: reads no faces; add identity: to it (docs/characters.md)")
    return deployment.identity


class Enroller:
    """The networks of a deployment, opened, and its folder of characters."""

    def __init__(self, deployment: Deployment) -> None:
        """Open the networks.

        Raises:
            ConfigError: the deployment reads no faces, or a file is missing or wrong.
        """
        self._setting = identity_of(deployment)
        self._limits = deployment.limits
        self._read = open_reader(self._setting)
        self._key = reader_key(self._setting)
        self._folder = EnrolledFolder(self._setting.characters)

    def __call__(
        self, name: str, photographs: Iterable[Path], *, threshold: float | None, replace: bool
    ) -> Enrolled:
        """Add `photographs` to the references of `name`, or replace them. None keeps its threshold.

        A photograph without exactly one face that is large enough is refused, and does not stop the others.

        Raises:
            InvalidRequest: the name is no id, or the threshold is none of the deployment's measure.
            ConfigError: the folder or the character's file is damaged, open to others, or of other networks.
        """
        self._folder.file(name)
        check_threshold(threshold, self._setting.measure)
        made = [self._photograph(path) for path in photographs]
        with self._folder.locked():
            earlier = None
            if not replace and name in self._folder.names():
                earlier = self._folder.read(name, key=self._key, measure=self._setting.measure)
            references = {one.sha256: one for one in (earlier.references if earlier else ())}
            made = [_unless_known(one, references) for one in made]
            references |= {one.reference.sha256: one.reference for one in made if one.reference}
            if not references:
                return Enrolled(tuple(made), None)
            own = earlier.threshold if threshold is None and earlier else threshold
            character = EnrolledCharacter(
                name=name,
                key=self._key,
                threshold=own,
                measure=None if own is None else self._setting.measure,
                references=tuple(references.values()),
            )
            self._folder.write(character)
        return Enrolled(tuple(self._warned(one, character) for one in made), character)

    def _photograph(self, path: Path) -> Photograph:
        try:
            data = read_encoded(path, most_bytes=self._limits.input_bytes)
            picture = decode_image(data, field=str(path), most_pixels=self._limits.input_pixels)
        except InvalidRequest as error:
            return Photograph(path, "refused", str(error))
        except OSError as error:
            return Photograph(path, "refused", f"{path}: {error.strerror or error}")
        faces = self._read(picture)
        large = [face for face in faces if face.side >= self._setting.smallest_face]
        if len(large) != 1:
            return Photograph(path, "refused", f"{path}: {_refusal(faces, large, self._setting)}")
        reference = EnrolledReference(
            name=path.name,
            sha256=hashlib.sha256(data).hexdigest(),
            face=round(large[0].side, 1),
            embedding=tuple(large[0].embedding.tolist()),
        )
        return Photograph(path, "ok", f"face of {large[0].side:.0f} pixels", reference)

    def _warned(self, made: Photograph, character: EnrolledCharacter) -> Photograph:
        """`made`, with a warning where its face is not like the character's other references."""
        if made.reference is None or len(character.references) == 1:
            return made
        text = unlike_the_others(made.reference, character, self._setting)
        return made if text is None else Photograph(made.path, "warning", text, made.reference)


def unlike_the_others(
    reference: EnrolledReference, character: EnrolledCharacter, setting: Identity
) -> str | None:
    """Why `reference` may show somebody else than the other references; None where it is like them."""
    others = [one.vector for one in character.references if one.sha256 != reference.sha256]
    if not others:
        return None
    criterion = criterion_of(setting, character)
    scores = scores_of(reference.read_face, others)
    if criterion.is_met(scores):
        return None
    value = scores.value(criterion.measure, criterion.reference)
    shown = f"{criterion.measure} {value:.3f}, threshold {criterion.threshold:g}"
    return f"{reference.name}: not like the other references ({shown}); is it the same person?"


def _refusal(faces: Sequence[ReadFace], large: Sequence[ReadFace], setting: Identity) -> str:
    if not faces:
        return "no face; allowed: a photograph of one face, seen from the front"
    if not large:
        side = max(face.side for face in faces)
        return f"face too small ({side:.0f} pixels); allowed: at least {setting.smallest_face}"
    return f"{len(large)} faces; allowed: a photograph of one person"


def _unless_known(made: Photograph, known: dict[str, EnrolledReference]) -> Photograph:
    if made.reference is None or made.reference.sha256 not in known:
        return made
    return Photograph(made.path, "ok", "enrolled before", made.reference)
