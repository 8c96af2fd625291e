"""Small caches."""

from __future__ import annotations

from intaglio.recently_used import RecentlyUsed


def test_the_least_recently_used_is_dropped() -> None:
    cache: RecentlyUsed[str] = RecentlyUsed(2)
    cache.put("a", "A")
    cache.put("b", "B")
    assert cache.get("a") == "A"
    cache.put("c", "C")
    assert (cache.get("b"), cache.get("a"), len(cache)) == (None, "A", 2)
    nothing: RecentlyUsed[str] = RecentlyUsed(0)
    nothing.put("a", "A")
    assert nothing.get("a") is None
