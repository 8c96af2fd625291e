"""From the filters of a specification to filters that work."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from typing import Any, Final

from intaglio.contract.filters import (
    BlankFilter,
    DetectorFilter,
    DuplicatesFilter,
    ExposureFilter,
    FilterSpec,
    IdentityFilter,
    PaletteFilter,
    SharpnessFilter,
)
from intaglio_client.address import DEFAULT_URL
from intaglio_client.client import Client
from intaglio_client.filters.detector import Detector
from intaglio_client.filters.duplicates import Duplicates
from intaglio_client.filters.identity import Identity
from intaglio_client.filters.luma import Blank, Exposure, Sharpness
from intaglio_client.filters.palette import Palette
from intaglio_client.filters.servers import FilterServers
from intaglio_client.filters.verdict import Filter

__all__ = ["LOCAL", "opened_filters"]


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


LOCAL: Final[Mapping[type[FilterSpec], Callable[[Any], Filter]]] = {
    BlankFilter: Blank,
    ExposureFilter: Exposure,
    SharpnessFilter: Sharpness,
    DuplicatesFilter: Duplicates,
    PaletteFilter: Palette.from_spec,
    DetectorFilter: Detector,
}
"""The filters that ask nobody, by the class of their keys."""


def _opened(spec: FilterSpec, servers: FilterServers, stack: ExitStack) -> Filter:
    """One filter; a kind that holds something enters it in `stack`."""
    if isinstance(spec, IdentityFilter):
        client = stack.enter_context(Client(servers.urls or DEFAULT_URL, **servers.settings))
        return Identity(spec, client, servers)
    return LOCAL[type(spec)](spec)
