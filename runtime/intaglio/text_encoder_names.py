"""Names of CLIP text encoders' weights, as published files have them.

transformers 5.6 dropped the level `text_model` of the encoder without a projection: the files that it writes
lack that level. The build and the trainer must read both layouts alike, so both take the rule from here.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Final

__all__ = ["PUBLISHED_NAMES", "published_name"]

PUBLISHED_NAMES: Final[Mapping[str, str]] = {r"^(?!text_model\.|text_projection\b)": "text_model."}
"""A pattern in a name, and what replaces it. transformers' `key_mapping` takes it, and releases without the
level drop it again themselves. A name that is published already stays as it is.
"""


def published_name(name: str) -> str:
    """`name` of a weight or a module, with the level `text_model` where it lacks it."""
    for pattern, replacement in PUBLISHED_NAMES.items():
        name = re.sub(pattern, replacement, name)
    return name
