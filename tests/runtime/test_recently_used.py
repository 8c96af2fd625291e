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


def test_sizes_add_up_to_the_capacity() -> None:
    cache: RecentlyUsed[str] = RecentlyUsed(10)
    for name, size in (("a", 4), ("b", 4), ("c", 2)):
        cache.put(name, name, size=size)
    assert cache.size == 10
    cache.put("d", "d", size=5)
    assert [name for name in "abcd" if cache.get(name)] == ["c", "d"]
    cache.put("c", "larger", size=5)
    assert (cache.get("c"), cache.size) == ("larger", 10), "a value takes its predecessor's place"
    cache.put("e", "e", size=11)
    assert (cache.get("e"), cache.size) == (None, 0), "too large to keep"
    cache.put("a", "a", size=10)
    cache.clear()
    assert (cache.get("a"), cache.size, len(cache)) == (None, 0, 0)
