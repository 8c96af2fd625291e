"""Which images are kept, and why the others are not.

Rules are asked in the order of `Reason`; the first that an image does not meet is its reason. Of duplicates
the one with the most pixels is kept, of equal ones the first by name. A class with more images than its quota
keeps those that come first by a hash of their names and the seed. So the result depends on the images, their
names and the options alone.
"""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from enum import StrEnum
from pathlib import Path, PurePath

from intaglio_train.datasets.alike import NEAR, Hashes
from intaglio_train.datasets.measured import Measured
from intaglio_train.errors import DataError
from intaglio_train.tables import rows_of

__all__ = ["Classes", "Decision", "Duplicates", "Quotas", "Reason", "Rules", "classes_in", "decide"]


class Reason(StrEnum):
    """Why an image is not kept."""

    DAMAGED = "damaged"
    TOO_SMALL = "too small"
    TOO_LONG = "too long"
    BLURRED = "blurred"
    DUPLICATE = "duplicate"
    NEAR_DUPLICATE = "near duplicate"
    NO_CLASS = "no class"
    QUOTA = "quota"


class Duplicates(StrEnum):
    """Which images count as the same."""

    NONE = "none"
    EXACT = "exact"
    NEAR = "near"


class Classes:
    """The classes that a table names."""

    def __init__(self) -> None:
        self._by_name: dict[str, dict[PurePath, str]] = {}

    def add(self, file: PurePath, name: str) -> str:
        """Let `file` have the class `name`, unless it has one already; the class that it has."""
        return self._by_name.setdefault(file.name, {}).setdefault(file, name)

    @property
    def names(self) -> set[str]:
        return {name for files in self._by_name.values() for name in files.values()}

    def of(self, image: PurePath) -> str | None:
        """The class of `image`, a path below the folder of images; None where the table does not name it.

        Folders are compared as far as both have them: the table may say `1.jpg`, `x/1.jpg` or `data/x/1.jpg`.

        Raises:
            DataError: the table names several such files, of different classes.
        """
        files = self._by_name.get(image.name, {})
        found = {name for file, name in files.items() if _ends_alike(file, image)}
        if len(found) > 1:
            classes = " and ".join(sorted(found))
            raise DataError(f"{image}: may be {classes}; give the folders in the table of classes")
        return next(iter(found), None)


def _ends_alike(one: PurePath, other: PurePath) -> bool:
    depth = min(len(one.parts), len(other.parts))
    return one.parts[-depth:] == other.parts[-depth:]


@dataclass(frozen=True, slots=True)
class Quotas:
    """How many images of each class are kept."""

    classes: Classes
    every: int | None = None
    """Of every class; None: all."""
    by_class: Mapping[str, int] = field(default_factory=dict)
    """Of these classes, whatever `every` says."""

    def of(self, name: str) -> int | None:
        return self.by_class.get(name, self.every)


@dataclass(frozen=True, slots=True)
class Rules:
    """What an image must meet."""

    min_side: int = 0
    """Pixels of the shorter side."""
    max_aspect: float | None = None
    """The longer side in shorter ones."""
    min_sharpness: float = 0.0
    duplicates: Duplicates = Duplicates.NEAR
    distance: int = NEAR
    """Bits of 64 in which the hashes of near duplicates differ at most."""
    quotas: Quotas | None = None
    seed: int = 0


@dataclass(frozen=True, slots=True)
class Decision:
    """What becomes of one image."""

    image: Measured
    reason: Reason | None = None
    """None: it is kept."""
    detail: str = ""
    class_name: str = ""


def decide(images: Sequence[Measured], rules: Rules, folder: Path) -> list[Decision]:
    """A decision for every image below `folder`, in the order of `images`, which is that of their names.

    Raises:
        DataError: a quota names a class that no image has, or an image may have two classes.
    """
    decided = {image.path: _alone(image, rules) for image in images}
    kept = [image for image in images if decided[image.path].reason is None]
    if rules.duplicates is not Duplicates.NONE:
        decided |= _duplicates(kept, rules)
        kept = [image for image in kept if decided[image.path].reason is None]
    if rules.quotas is not None:
        decided |= _within_quotas(kept, rules.quotas, rules.seed, folder)
    return [decided[image.path] for image in images]


def _alone(image: Measured, rules: Rules) -> Decision:
    """What can be said of an image without the others."""
    if image.problem:
        return Decision(image, Reason.DAMAGED, image.problem)
    shorter = min(image.width, image.height)
    if shorter < rules.min_side:
        return Decision(image, Reason.TOO_SMALL, f"{shorter} pixels are below {rules.min_side}")
    if rules.max_aspect is not None and image.aspect > rules.max_aspect:
        return Decision(image, Reason.TOO_LONG, f"{image.aspect:.2f} is above {rules.max_aspect:g}")
    if image.sharpness < rules.min_sharpness:
        return Decision(image, Reason.BLURRED, f"{image.sharpness:.1f} is below {rules.min_sharpness:g}")
    return Decision(image)


def _duplicates(images: Sequence[Measured], rules: Rules) -> dict[Path, Decision]:
    by_size = sorted(
        images, key=lambda image: -image.width * image.height
    )  # stable: names decide among equals
    first: dict[str, Measured] = {}
    hashes = Hashes(len(images))
    kept: list[Measured] = []
    found = {}
    for image in by_size:
        same = first.setdefault(image.sha256, image)
        if same is not image:
            found[image.path] = Decision(image, Reason.DUPLICATE, f"of {same.path}")
            continue
        if rules.duplicates is Duplicates.NEAR:
            differences = hashes.differences(image.hash)
            if kept and (bits := int(differences.min())) <= rules.distance:
                near = kept[int(differences.argmin())]
                found[image.path] = Decision(image, Reason.NEAR_DUPLICATE, f"{bits} bits from {near.path}")
                continue
            hashes.add(image.hash)
            kept.append(image)
    return found


def _within_quotas(
    images: Sequence[Measured], quotas: Quotas, seed: int, folder: Path
) -> dict[Path, Decision]:
    names = quotas.classes.names
    if unknown := sorted(set(quotas.by_class) - names):
        raise DataError(
            f"quota of {unknown[0]}: no image has this class; classes are {', '.join(sorted(names))}"
        )
    taken: Counter[str] = Counter()
    found = {}
    for image in sorted(images, key=lambda one: _rank(one.path.name, seed)):
        name = quotas.classes.of(image.path.relative_to(folder))
        if name is None:
            found[image.path] = Decision(image, Reason.NO_CLASS, "the table of classes does not name it")
            continue
        quota = quotas.of(name)
        if quota is not None and taken[name] >= quota:
            found[image.path] = Decision(image, Reason.QUOTA, f"{quota} of {name} are kept", name)
            continue
        taken[name] += 1
        found[image.path] = Decision(image, class_name=name)
    return found


def _rank(name: str, seed: int) -> bytes:
    return hashlib.sha256(f"{seed}:{name}".encode()).digest()


def classes_in(table: Path) -> Classes:
    """What is in a CSV or JSONL table with the columns `file` (or `file_name`) and `class`.

    Raises:
        DataError: a column or a cell is missing, or a file has two classes; the message names the row.
    """
    found = Classes()
    for row in rows_of(table):
        file, name = row.cells.get("file", row.cells.get("file_name")), row.cells.get("class")
        if not isinstance(file, str) or not isinstance(name, str) or not file.strip() or not name.strip():
            raise DataError(f"{row.where} has no file or no class; needed are the columns file and class")
        before = found.add(PurePath(file.strip()), name.strip())
        if before != name.strip():
            raise DataError(
                f"{row.where}: {file.strip()} is {name.strip()} here and {before} above; keep one"
            )
    if not found.names:
        raise DataError(f"{table}: has no rows; needed are the columns file and class")
    return found
