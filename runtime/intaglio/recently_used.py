"""A small cache of the values used last, for one thread."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Hashable
from typing import Generic, TypeVar

__all__ = ["RecentlyUsed"]

Value = TypeVar("Value")


class RecentlyUsed(Generic[Value]):
    """The values that were used last, by key, whose sizes add up to at most `capacity`; 0 keeps nothing.

    A value has size 1 unless `put` says otherwise. So `capacity` is a number of values, or of bytes.
    """

    def __init__(self, capacity: int) -> None:
        self._capacity = capacity
        self._entries: OrderedDict[Hashable, Value] = OrderedDict()
        self._sizes: dict[Hashable, int] = {}

    def get(self, key: Hashable) -> Value | None:
        """The value under `key`, which becomes the most recent one."""
        found = self._entries.get(key)
        if found is not None:
            self._entries.move_to_end(key)
        return found

    def put(self, key: Hashable, value: Value, *, size: int = 1) -> None:
        """Keep `value` instead of those that were not used for longest; not at all where it is too large."""
        self._entries.pop(key, None)
        self._sizes.pop(key, None)
        self.make_room(size)
        if size <= self._capacity:
            self._entries[key] = value
            self._sizes[key] = size

    def make_room(self, size: int) -> None:
        """Forget so much that a value of `size` fits, as far as one does."""
        while self._entries and self.size + size > self._capacity:
            key, _ = self._entries.popitem(last=False)
            del self._sizes[key]

    def clear(self) -> None:
        """Forget everything."""
        self._entries.clear()
        self._sizes.clear()

    @property
    def size(self) -> int:
        """Sum of the sizes of what is kept."""
        return sum(self._sizes.values())

    def __len__(self) -> int:
        return len(self._entries)
