"""The faces of a build that is served: its networks, and the folder of characters."""

from __future__ import annotations

import threading
from pathlib import Path

from PIL import Image

from intaglio.builds.manifest import BuildManifest
from intaglio.contract.config import Limits
from intaglio.contract.identity import FacesWanted, Identity
from intaglio.errors import ConfigError
from intaglio.faces.enrolled import EnrolledCharacter, EnrolledFolder
from intaglio.faces.found import FaceReader
from intaglio.faces.likeness import Criterion, Judgement, judged
from intaglio.faces.opening import open_reader, reader_key

__all__ = ["ServedFaces", "criterion_of"]


class ServedFaces:
    """What compares pictures with characters. The first picture opens the networks.

    The file of a character is read with each request and not kept, so that nothing of it remains when it is
    forgotten.
    """

    def __init__(self, manifest: BuildManifest, folder: Path) -> None:
        """`folder` is the build's.

        Raises:
            ConfigError: the deployment does not read faces.
        """
        if manifest.identity is None:
            raise ConfigError("this deployment reads no faces; add identity to its YAML file")
        self.limits: Limits = manifest.limits
        self.setting: Identity = manifest.identity.below(folder)
        self._enrolled = EnrolledFolder(self.setting.characters)
        self._lock = threading.Lock()
        self._opened: tuple[FaceReader, str] | None = None

    def character(self, name: str) -> EnrolledCharacter:
        """The enrolled character `name`.

        Raises:
            InvalidRequest: it is not enrolled.
            ConfigError: its file is damaged, open to others, or of other networks or another measure; or a
                network is missing.
        """
        _, key = self._networks()
        return self._enrolled.read(name, key=key, measure=self.setting.measure)

    def __call__(self, picture: Image.Image, character: EnrolledCharacter, criterion: Criterion) -> Judgement:
        """What RGB `picture` is found to be."""
        read, _ = self._networks()
        return judged(read(picture), character.embeddings, criterion)

    def _networks(self) -> tuple[FaceReader, str]:
        """What reads faces, and its key."""
        with self._lock:
            if self._opened is None:
                self._opened = open_reader(self.setting), reader_key(self.setting)
            return self._opened


def criterion_of(
    setting: Identity,
    character: EnrolledCharacter,
    *,
    threshold: float | None = None,
    faces: FacesWanted = "one",
) -> Criterion:
    """When a face is that of `character`: by `threshold`, else by the character's own, else by the
    deployment's.
    """
    own = character.threshold if threshold is None else threshold
    return Criterion(
        measure=setting.measure,
        threshold=setting.threshold if own is None else own,
        reference=setting.reference,
        smallest_face=setting.smallest_face,
        faces=faces,
    )
