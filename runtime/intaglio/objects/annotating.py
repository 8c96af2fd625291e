"""Pictures of a folder -> a folder of labelled pictures."""

from __future__ import annotations

import hashlib
import json
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, Literal

from intaglio.contract.config import Limits
from intaglio.contract.objects import ObjectNetwork, ObjectRules
from intaglio.errors import InvalidRequest
from intaglio.imaging.images import decode_image, read_encoded
from intaglio.objects.labelled_folder import LabelledFolder
from intaglio.objects.opening import finder_key, open_finder
from intaglio.objects.rules import broken_rule, check_rules

__all__ = ["Labelled", "Labeller"]

_PIXEL_BYTES: Final = 8
"""Most that a pixel fills in a file: four channels of 16 bits."""


@dataclass(frozen=True, slots=True)
class Labelled:
    """What became of one picture."""

    picture: Path
    state: Literal["ok", "rejected", "refused"]
    detail: str
    record: Mapping[str, Any] | None = None
    """None where it was refused."""
    kept: bool = False
    """Whether an earlier run did it."""


class Labeller:
    """A network and rules, ready for pictures."""

    def __init__(self, network: ObjectNetwork, rules: ObjectRules) -> None:
        """Open the network.

        Raises:
            ConfigError: a file is missing or wrong, or a rule is about an unknown class.
        """
        self._find = open_finder(network)
        self._rules = rules
        check_rules(rules, self.names, least=network.confidence)
        values = {"network": finder_key(network), "rules": rules.model_dump(mode="json")}
        self._key = hashlib.sha256(json.dumps(values, sort_keys=True).encode()).hexdigest()
        self._limits = Limits()

    @property
    def names(self) -> Sequence[str]:
        """Names of the classes."""
        return self._find.names

    def __call__(self, pictures: Iterable[Path], folder: LabelledFolder) -> Iterator[Labelled]:
        """Label `pictures` into `folder`, which is locked. What an earlier run did with the same network and
        the same rules stays.
        """
        records = []
        for picture in pictures:
            labelled = self._labelled(picture, folder)
            if labelled.record is not None:
                records.append(labelled.record)
            yield labelled
        folder.finish(records, self.names)

    def _labelled(self, picture: Path, folder: LabelledFolder) -> Labelled:
        try:
            data = read_encoded(picture, most_bytes=_PIXEL_BYTES * self._limits.input_pixels)
        except InvalidRequest as error:
            folder.remove(picture)
            return Labelled(picture, "refused", str(error))
        except OSError as error:
            folder.remove(picture)
            return Labelled(picture, "refused", f"{picture}: {error.strerror or error}")
        digest = hashlib.sha256(data).hexdigest()
        record = folder.record(picture.stem)
        about = {"picture": picture.name, "sha256": digest, "key": self._key, "link": folder.link}
        kept = record is not None and all(record.get(key) == value for key, value in about.items())
        if record is None or not kept:
            try:
                image = decode_image(data, field=str(picture), most_pixels=self._limits.input_pixels)
            except InvalidRequest as error:
                folder.remove(picture)
                return Labelled(picture, "refused", str(error))
            objects = self._find(image)
            reason = broken_rule(self._rules, objects)
            record = folder.write(
                picture, image, objects, {**about, "accepted": not reason, "reason": reason}
            )
        shown = record["reason"] or _counted(record["objects"])
        return Labelled(picture, "ok" if record["accepted"] else "rejected", shown, record, kept)


def _counted(objects: Sequence[Mapping[str, Any]]) -> str:
    """`2 person, 1 bus`, the most frequent first."""
    counts = Counter(str(one["class"]) for one in objects)
    return ", ".join(f"{count} {name}" for name, count in counts.most_common()) or "nothing"
