"""Until K are accepted or M tried: counted in the order of the items, for the batch or for each group."""

from __future__ import annotations

import math
from collections import Counter

from intaglio_client.batch.combining import Items
from intaglio_client.batch.spec import LimitsSpec

__all__ = ["Quota"]


class Quota:
    """What was accepted and tried so far."""

    def __init__(self, limits: LimitsSpec, items: Items) -> None:
        self._limits = limits
        self._items = items
        self.accepted = 0
        self.tried = 0
        self._accepted: Counter[str] = Counter()
        self._tried: Counter[str] = Counter()
        self._after = Counter(items.groups) if limits.per is not None else Counter({"": len(items)})
        """Items of each group that follow from `_passed` on."""
        self._passed = 0
        self._left = Counter({group: self._left_in(group) for group in self._after})
        self._all_left = self._left.total()

    def count(self, index: int, *, accepted: bool) -> None:
        """Count the verdict of the item `index`."""
        group = self._items.group(index)
        self.tried += 1
        self._tried[group] += 1
        if accepted:
            self.accepted += 1
            self._accepted[group] += 1
        self._update(group)

    def is_full(self, index: int) -> bool:
        """Whether the group of the item `index` has what it needs, or may try no more. It stays so."""
        group = self._items.group(index)
        most, wanted = self._limits.tried, self._limits.accepted
        is_tried = most is not None and self._tried[group] >= most
        return is_tried or (wanted is not None and self._accepted[group] >= wanted)

    def left(self, first: int) -> int:
        """How many items from `first` on will probably be tried, with as many accepted as so far.

        `first` does not fall from call to call.
        """
        for index in range(self._passed, first):
            group = self._items.group(index)
            self._after[group] -= 1
            self._update(group)
        self._passed = max(self._passed, first)
        return self._all_left

    def _update(self, group: str) -> None:
        """Take in what changed in one group: there may be as many groups as pictures."""
        left = self._left_in(group)
        self._all_left += left - self._left[group]
        self._left[group] = left

    def _left_in(self, group: str) -> int:
        most, wanted = self._limits.tried, self._limits.accepted
        tried, accepted, waiting = self._tried[group], self._accepted[group], self._after[group]
        left = waiting if most is None else min(waiting, max(most - tried, 0))
        if wanted is None:
            return left
        share = (accepted + 1) / (tried + 2)  # one of two, where nothing was tried
        return min(left, math.ceil(max(wanted - accepted, 0) / share))

    @property
    def short_of(self) -> list[str]:
        """Groups that were tried without getting as many as are wanted; the whole batch is the group ``."""
        wanted = self._limits.accepted
        if wanted is None:
            return []
        groups = dict.fromkeys(self._items.groups)
        return [group for group in groups if self._accepted[group] < wanted]
