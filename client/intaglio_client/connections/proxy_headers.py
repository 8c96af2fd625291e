"""What a request says to proxies: its id, and the name of its LoRAs. No server reads either.

A change of LoRAs takes a server most of a second. A proxy that hashes the name (docs/shipping.md) sends
requests with the same LoRAs to the same server.
"""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Mapping
from typing import Any, Final

from numpy.typing import NDArray

from intaglio.contract.lora_tags import split_lora_tags
from intaglio.contract.ports import shortest_float32
from intaglio.errors import InvalidRequest

__all__ = ["LORAS_HEADER", "NO_LORAS", "REQUEST_ID_HEADER", "lora_set_name"]

REQUEST_ID_HEADER: Final = "x-request-id"
LORAS_HEADER: Final = "x-intaglio-loras"
NO_LORAS: Final = "-"
"""The name of the empty set. Its requests belong together, too: a server takes LoRAs off for them."""
_SENDABLE: Final = re.compile(r"[!-~]{1,256}", re.ASCII)


def lora_set_name(tensors: Mapping[str, NDArray[Any]]) -> str:
    """The name of the LoRAs in the inputs of `sdxl` or `sdxl_stream`: `mara@1+night@0.8`, sorted by id.

    Equal sets have equal names, wherever a request names its LoRAs: in the prompt, in `loras`, or in both. A
    LoRA without a weight has none in the name, since only the server knows the registry's: the same set with
    that weight written out has another name. A name that is long, or that no header may hold, becomes its
    SHA-256.
    """
    named = {_entry(lora, weight) for lora, weight in _asked(tensors)} - {""}
    name = "+".join(sorted(named)) or NO_LORAS
    return name if _SENDABLE.fullmatch(name) else hashlib.sha256(name.encode()).hexdigest()


def _entry(lora: str, weight: float | None) -> str:
    """One LoRA in the name; nothing at weight 0, with which the server applies none."""
    if weight is None:
        return lora
    return f"{lora}@{shortest_float32(weight):g}" if weight else ""


def _asked(tensors: Mapping[str, NDArray[Any]]) -> list[tuple[str, float | None]]:
    listed = json.loads(tensors["loras"][0]) if "loras" in tensors else []
    found = [(entry["id"], entry.get("weight")) for entry in listed]
    try:
        tags = split_lora_tags(tensors["prompt"][0].decode()).tags
    except InvalidRequest:  # the server refuses this prompt, whichever server that is
        tags = ()
    return found + [(tag.id, tag.weight) for tag in tags]
