"""The specification of a batch: a YAML file, or a CSV table with one picture a row."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Annotated, Any, Final, Literal, Self

from pydantic import Field, ValidationInfo, field_validator, model_validator

from intaglio.contract.filters import FilterSpec, filters_from_entries
from intaglio.contract.models import OutputFormat
from intaglio.contract.yaml_files import Strict, read_yaml, resolved_path, validated
from intaglio.errors import InvalidRequest
from intaglio_client.address import check_url

__all__ = ["NAME_FIELD", "BatchSpec", "LimitsSpec", "OutputSpec", "RandomSpec", "read_spec"]

Combine = Literal["grid", "zip", "random"]
Count = Annotated[int, Field(ge=1, le=1_000_000)]
NAME_FIELD: Final = re.compile(r"\{(\w+)\}")
_NAMES: Final = re.compile(r"[A-Za-z0-9{][A-Za-z0-9._{}-]*")
_TABLE: Final = ".csv"


class RandomSpec(Strict):
    """Sampling of combinations."""

    count: Count
    """How many combinations are drawn; no combination twice."""
    seed: int = Field(default=0, ge=0)
    """The same seed draws the same combinations. It is not the seed of any picture."""


class LimitsSpec(Strict):
    """When a batch ends before all its pictures are drawn."""

    accepted: Count | None = None
    """It ends as soon as so many pictures were accepted."""
    tried: Count | None = None
    """It ends after so many pictures."""
    per: str | None = None
    """An input or `rows`: both limits then hold for each of its values by itself. Absent: for the batch."""

    @model_validator(mode="after")
    def _per_what(self) -> Self:
        if self.per is not None and self.accepted is None and self.tried is None:
            raise ValueError("per needs accepted or tried beside it")
        return self


class OutputSpec(Strict):
    """Where the pictures go."""

    folder: Path | None = None
    """Folder of the pictures, the manifest and the contact sheet; relative to the specification. Absent:
    `out/NAME` in the folder where the command runs, after the specification. The option `--out` replaces it.
    """
    format: OutputFormat = "png"
    """Format of the pictures."""
    names: str = "{index}"
    """Name of a picture without its suffix: letters, digits, `.`, `_`, `-`, and names of inputs in braces.
    `{index}`, the number of the picture, has to be among them.
    """
    apart: bool = False
    """Whether accepted and rejected pictures go into the folders `accepted` and `rejected`."""

    @field_validator("folder")
    @classmethod
    def _resolved(cls, path: Path | None, info: ValidationInfo) -> Path | None:
        return None if path is None else resolved_path(path, info)

    @field_validator("names")
    @classmethod
    def _unique(cls, names: str) -> str:
        if "{index}" not in names or not _NAMES.fullmatch(names):
            allowed = "letters, digits, ._- and {input}, with {index} among them"
            raise ValueError(f"is {names!r}; allowed: {allowed}")
        return names


class BatchSpec(Strict):
    """Which pictures are drawn, how they are judged, and where they go."""

    inputs: dict[str, Any] = Field(default_factory=dict)
    """Inputs of a request by name, each a value or a list. A list is an axis of the batch: each of its items
    is a value. `size: 1024x768` is short for width and height, `seed: {from: 1, count: 100}` for a list of
    seeds. A value of `loras` or `controls` is a text as in `intaglio generate`, or a list of such texts.
    """
    rows: Path | None = None
    """A CSV table: one more axis, whose values are the rows. Columns are names of inputs."""
    combine: Combine = "grid"
    """`grid`: every combination of the axes, the last one changes fastest. `zip`: the first values of all
    axes, then the second ones. `random`: as many combinations as `random` says.
    """
    random: RandomSpec | None = None
    """How combinations are sampled; only with `combine: random`."""
    group_loras: bool = True
    """Whether pictures with the same LoRAs come one after another, so that servers change LoRAs seldom. The
    sets come in the order in which they appear first.
    """
    limits: LimitsSpec = Field(default_factory=LimitsSpec)
    """When the batch ends before all its pictures are drawn."""
    filters: tuple[FilterSpec, ...] = ()
    """What judges the pictures, one filter after another; the first that rejects a picture is the last that
    sees it.
    """
    output: OutputSpec = Field(default_factory=OutputSpec)
    """Where the pictures go."""
    url: tuple[str, ...] = ()
    """host:port of servers' gRPC. The option `--url` replaces them."""
    in_flight: Annotated[int, Field(ge=1, le=64)] = 2
    """Pictures that each server has at a time, so that it never waits for the next one."""
    same_build: bool = True
    """Whether all pictures have to come from the same build, with the same versions of LoRAs. Builds for
    other cards draw slightly different pictures.
    """

    @field_validator("rows")
    @classmethod
    def _resolved(cls, path: Path | None, info: ValidationInfo) -> Path | None:
        return None if path is None else resolved_path(path, info)

    @field_validator("filters", mode="before")
    @classmethod
    def _of_their_kinds(cls, entries: Any, info: ValidationInfo) -> Any:
        return filters_from_entries(entries, folder=(info.context or {}).get("folder"))

    @field_validator("url", mode="before")
    @classmethod
    def _addresses(cls, given: Any) -> Any:
        urls = (given,) if isinstance(given, str) else given
        for url in urls if isinstance(urls, list | tuple) else ():
            try:
                check_url(str(url))
            except InvalidRequest as error:
                raise ValueError(f"{error.problem}; allowed: {error.allowed}") from None
        return urls

    @model_validator(mode="after")
    def _complete(self) -> Self:
        if (self.combine == "random") != (self.random is not None):
            raise ValueError("combine: random and random: {count: ..., seed: ...} go together")
        if not self.inputs and self.rows is None:
            raise ValueError("nothing to draw; allowed: inputs, rows or both")
        return self


def read_spec(path: Path) -> BatchSpec:
    """The specification at `path`; ConfigError names what is wrong with it."""
    if path.suffix.lower() == _TABLE:
        return BatchSpec(rows=path)
    return validated(BatchSpec, read_yaml(path), path)
