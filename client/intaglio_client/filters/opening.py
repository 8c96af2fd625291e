"""From the filters of a specification to filters that work."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field

from intaglio.contract.filters import (
    BlankFilter,
    DuplicatesFilter,
    ExposureFilter,
    FilterSpec,
    PaletteFilter,
    SharpnessFilter,
)
from intaglio_client.asking import Settings
from intaglio_client.filters.duplicates import Duplicates
from intaglio_client.filters.luma import Blank, Exposure, Sharpness
from intaglio_client.filters.palette import Palette
from intaglio_client.filters.verdict import Filter

__all__ = ["FilterServers", "opened_filters"]


@dataclass(frozen=True, slots=True)
class FilterServers:
    """Servers that a filter may ask, where its work is done by a model of theirs."""

    urls: tuple[str, ...] = ()
    settings: Settings = field(default_factory=Settings)


@contextmanager
def opened_filters(
    specs: Sequence[FilterSpec], *, servers: FilterServers | None = None
) -> Iterator[tuple[Filter, ...]]:
    """The filters of `specs`, in their order. What they hold is given back at the end of the block.

    Raises:
        ConfigError: a file of a filter is missing or wrong.
    """
    asked = servers or FilterServers()
    with ExitStack() as stack:
        yield tuple(_opened(spec, asked, stack) for spec in specs)


def _opened(spec: FilterSpec, servers: FilterServers, stack: ExitStack) -> Filter:
    """One filter; a kind that holds something enters it in `stack`."""
    match spec:
        case BlankFilter():
            return Blank(spec)
        case ExposureFilter():
            return Exposure(spec)
        case SharpnessFilter():
            return Sharpness(spec)
        case DuplicatesFilter():
            return Duplicates(spec)
        case PaletteFilter():
            return Palette.from_spec(spec)
    raise AssertionError(f"no filter of kind {spec.kind}")
