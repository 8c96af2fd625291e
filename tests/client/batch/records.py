"""Lines of a manifest, as a batch writes them."""

from __future__ import annotations

from intaglio_client.batch.manifest import KEYS, Record

__all__ = ["record"]


def record(index: int, **values: object) -> Record:
    """The line of the picture `index`, which was accepted, with `values` in place of its own."""
    texts = {**dict.fromkeys(KEYS, ""), "file": f"{index:06d}.png", "item": "0" * 64}
    mappings: Record = {key: {} for key in ("scores", "boxes", "parameters", "timings")}
    own = {"index": index, "bytes": 1, "accepted": True, "inputs": {"prompt": "a"}}
    return {**texts, **mappings, **own, **values}
