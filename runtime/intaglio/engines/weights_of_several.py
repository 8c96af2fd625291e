"""One component whose weights lie in several engines."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import TypeVar

from intaglio.contract.tensors import Precision
from intaglio.engines.interface import Array, DeviceArray, Refittable

__all__ = ["WeightsOfSeveral"]

_Value = TypeVar("_Value")


class WeightsOfSeveral:
    """A `Refittable` over several engines: each weight is refitted in the engine that contains it."""

    def __init__(self, engines: Mapping[str, Refittable], network_of: Callable[[str], str]) -> None:
        """`engines` by network, all of one precision; `network_of` names the network of a weight."""
        self._engines = engines
        self._network_of = network_of

    @property
    def precision(self) -> Precision:
        return next(iter(self._engines.values())).precision

    def refit(self, weights: Mapping[str, Array | DeviceArray]) -> None:
        """Refit one engine after another.

        An error may leave some engines refitted. The caller must then give all values again before it serves.
        """
        for network, values in self._by_network(weights).items():
            self._engines[network].refit(values)

    def joined(self, sizes: Mapping[str, int]) -> Sequence[frozenset[str]]:
        groups: list[frozenset[str]] = []
        for network, own in self._by_network(sizes).items():
            groups += self._engines[network].joined(own)
        return groups

    def _by_network(self, named: Mapping[str, _Value]) -> dict[str, dict[str, _Value]]:
        found: dict[str, dict[str, _Value]] = {}
        for name, value in named.items():
            found.setdefault(self._network_of(name), {})[name] = value
        return found
