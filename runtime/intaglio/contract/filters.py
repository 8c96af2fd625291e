"""What judges pictures of a batch: the kinds of filters, and the keys of each in a specification.

A filter measures a picture and accepts or rejects it. A bound that is left out rejects nothing, so a filter
without bounds only measures. A new kind is a class here and its row in `FILTER_KINDS`, and its case in
`intaglio_client/filters/opening.py`.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any, Final, Literal, Self

from pydantic import (
    Field,
    StringConstraints,
    ValidationError,
    ValidationInfo,
    field_validator,
    model_validator,
)

from intaglio.contract.identity import FacesWanted, Threshold
from intaglio.contract.objects import Forbidden, ObjectNetwork, ObjectRules, Required
from intaglio.contract.yaml_files import RegistryId, Strict, resolved_path
from intaglio.validation_errors import Allowed, nearest, problems_text

__all__ = [
    "FILTER_KINDS",
    "BlankFilter",
    "DetectorFilter",
    "DuplicatesFilter",
    "ExposureFilter",
    "FilterSpec",
    "HexColour",
    "IdentityFilter",
    "PaletteFilter",
    "SharpnessFilter",
    "filter_from_entry",
    "filters_from_entries",
]

Share = Annotated[float, Field(ge=0, le=1, allow_inf_nan=False)]
Bound = Annotated[float, Field(ge=0, allow_inf_nan=False)]
HexColour = Annotated[
    str, StringConstraints(pattern=r"^#[0-9a-fA-F]{6}$"), Allowed('"#rrggbb", in quotes in YAML')
]


class FilterSpec(Strict):
    """What all kinds have."""

    kind: str
    """Which kind of filter it is."""
    name: RegistryId = ""
    """What the manifest calls it; absent: its kind. Two filters of one batch need different names."""

    @model_validator(mode="before")
    @classmethod
    def _named(cls, values: Any) -> Any:
        """The kind as the name, where none is given."""
        if isinstance(values, dict) and not values.get("name"):
            return {**values, "name": values.get("kind")}
        return values

    @property
    def files(self) -> tuple[Path, ...]:
        """Files that the verdict depends on: a change of their bytes is a change of the filter."""
        return ()


class _Bounded(FilterSpec):
    """A filter of one figure with two bounds."""

    least: Bound | None = None
    """Pictures below it are rejected."""
    most: Bound | None = None
    """Pictures above it are rejected."""

    @model_validator(mode="after")
    def _in_order(self) -> Self:
        if self.least is not None and self.most is not None and self.least > self.most:
            raise ValueError(
                f"least {self.least:g} is above most {self.most:g}, so nothing would be accepted"
            )
        return self


class SharpnessFilter(_Bounded):
    """How sharp a picture is: the variance of its Laplacian, of luma 0 to 255.

    It grows with detail and falls with blur. It depends on the size of the picture and on what it shows: look
    at the figures of a few pictures before you set a bound.
    """

    kind: Literal["sharpness"]


class ExposureFilter(_Bounded):
    """How bright a picture is, and how much of it is clipped."""

    kind: Literal["exposure"]
    least: Share | None = None
    """Pictures with a mean luma below it are rejected; black is 0, white is 1."""
    most: Share | None = None
    """Pictures with a mean luma above it are rejected."""
    most_black: Share | None = None
    """Most of the picture, as a share, that may be black (luma of at most 2 of 255)."""
    most_white: Share | None = None
    """Most of the picture, as a share, that may be white (luma of at least 253 of 255)."""


class BlankFilter(FilterSpec):
    """Rejects pictures that show nothing: black, of one colour, or what a network that computes NaN gives."""

    kind: Literal["blank"]
    least_contrast: Share = 0.02
    """Pictures whose luma (0 to 1) has a smaller standard deviation are rejected."""
    most_of_one_colour: Share = 0.98
    """Pictures of which a larger share has one colour (32 levels a channel) are rejected."""


class DuplicatesFilter(FilterSpec):
    """Rejects pictures that look like an earlier one of the batch that this filter let through.

    Two pictures are compared by a perceptual hash of 64 bits, of the low frequencies of their luma.
    """

    kind: Literal["duplicates"]
    distance: Annotated[int, Field(ge=0, le=64)] = 4
    """Pictures that differ in at most so many bits are duplicates."""


class PaletteFilter(FilterSpec):
    """Accepts pictures that show given colours, such as those of a drawn character's hair and clothes.

    A pixel has a colour where it is near to one of its shades in CIE Lab.
    """

    kind: Literal["palette"]
    colours: dict[str, HexColour] = Field(default_factory=dict)
    """Name -> colour. Each has to be there."""
    file: Path | None = None
    """Instead of `colours`: a YAML file, `characters: {NAME: {COLOUR: "#rrggbb"}}`."""
    character: RegistryId | None = None
    """Which of the characters in `file`."""
    least: Share = 0.01
    """Pictures of which each colour does not fill at least this share are rejected."""
    reach: Annotated[float, Field(gt=0, le=100)] = 14.0
    """Lab distance within which a pixel has a shade's colour."""
    shades: tuple[Annotated[float, Field(gt=0, le=2)], ...] = (1.06, 0.9, 0.74)
    """What light and shadow make of a colour: factors of its red, green and blue."""

    @field_validator("file")
    @classmethod
    def _resolved(cls, path: Path | None, info: ValidationInfo) -> Path | None:
        return None if path is None else resolved_path(path, info)

    @model_validator(mode="after")
    def _one_source(self) -> Self:
        if bool(self.colours) == (self.file is not None):
            raise ValueError("give exactly one of colours and file")
        if (self.file is None) != (self.character is None):
            raise ValueError("file and character go together")
        if not self.shades:
            raise ValueError("shades is empty; 1.0 is the colour itself")
        return self

    @property
    def files(self) -> tuple[Path, ...]:
        return () if self.file is None else (self.file,)


class IdentityFilter(FilterSpec):
    """Accepts pictures that show the face of a character (docs/characters.md).

    The servers of the batch compare: their deployment needs `identity`, and the character is enrolled there.
    """

    kind: Literal["identity"]
    character: RegistryId
    """Id of the character."""
    threshold: Threshold | None = None
    """Least cosine, or greatest Euclidean distance, as the deployment measures. Absent: the character's, or
    the deployment's.
    """
    faces: FacesWanted = "one"
    """`one`: the picture must show one face. `any`: one of its faces must be the character's."""


class DetectorFilter(FilterSpec, ObjectNetwork):
    """Labels what is in a picture, and accepts pictures that keep to rules about it (docs/labels.md)."""

    kind: Literal["detector"]
    require: tuple[Required, ...] = ()
    """Classes that a picture needs, each with a count and a least confidence."""
    forbid: tuple[Forbidden, ...] = ()
    """Classes that no picture may show, each with a least confidence."""

    @property
    def files(self) -> tuple[Path, ...]:
        return tuple(path for path in (self.network, self.classes) if path is not None)

    @property
    def finder(self) -> ObjectNetwork:
        """The network's own keys."""
        return ObjectNetwork(**{key: getattr(self, key) for key in ObjectNetwork.model_fields})

    @property
    def rules(self) -> ObjectRules:
        """What a picture must fulfil."""
        return ObjectRules(require=self.require, forbid=self.forbid)


FILTER_KINDS: Final[Mapping[str, type[FilterSpec]]] = {
    "blank": BlankFilter,
    "exposure": ExposureFilter,
    "sharpness": SharpnessFilter,
    "duplicates": DuplicatesFilter,
    "palette": PaletteFilter,
    "identity": IdentityFilter,
    "detector": DetectorFilter,
}
"""Every kind by its name."""


def filter_from_entry(entry: Any, *, folder: Path | None = None) -> FilterSpec:
    """An entry of a specification's `filters`. Relative paths in it start at `folder`.

    Raises:
        ValueError: names the key that is wrong, and what is allowed.
    """
    if isinstance(entry, FilterSpec):
        return entry
    known = ", ".join(FILTER_KINDS)
    if not isinstance(entry, Mapping):
        raise ValueError(f"is {entry!r}; allowed: a mapping with the key kind ({known})")
    kind = entry.get("kind")
    if kind is None:
        raise ValueError(f"key kind is missing; allowed: {known}")
    if not isinstance(kind, str) or kind not in FILTER_KINDS:
        raise ValueError(f"kind is {kind!r}{nearest(str(kind), FILTER_KINDS)}; allowed: {known}")
    model = FILTER_KINDS[kind]
    try:
        return model.model_validate(dict(entry), context={"folder": folder} if folder else None)
    except ValidationError as error:
        raise ValueError(problems_text(error, model)) from error


def filters_from_entries(entries: Any, *, folder: Path | None = None) -> tuple[FilterSpec, ...]:
    """The filters of a list; each has a name of its own. Relative paths start at `folder`.

    Raises:
        ValueError: names the filter and the key that is wrong, and what is allowed.
    """
    if not isinstance(entries, list | tuple):
        raise ValueError("is no list; allowed: a list of filters, each with its kind")
    found = []
    for index, entry in enumerate(entries):
        try:
            found.append(filter_from_entry(entry, folder=folder))
        except ValueError as error:
            raise ValueError(f"filter {index + 1}: {error}") from None
    names = [one.name for one in found]
    if twice := sorted({name for name in names if names.count(name) > 1}):
        raise ValueError(f"two filters are named {twice[0]}; give one of them a name of its own")
    return tuple(found)
