"""The pages of docs/ and their generated parts.

A generated part lies between two comments, `<!-- generated: NAME ... -->` and `<!-- end: NAME -->`. All else
on a page is written by hand.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Final

from reference.batches import batch_keys, filter_keys, manifest_keys
from reference.configuration import deployment_keys, training_keys
from reference.inputs import annotate_inputs, identity_inputs, request_inputs, stream_inputs
from reference.methods import few_step_methods
from reference.metrics import metrics

__all__ = ["PARTS", "ROOT", "replaced", "written_pages"]

ROOT: Final = Path(__file__).resolve().parents[1]
PARTS: Final[Mapping[str, Mapping[str, Callable[[], str]]]] = {
    "docs/batches.md": {"manifest": manifest_keys, "filters": filter_keys, "batch": batch_keys},
    "docs/characters.md": {"identity": identity_inputs},
    "docs/clients.md": {"inputs": request_inputs, "stream": stream_inputs},
    "docs/controls.md": {"annotate": annotate_inputs},
    "docs/configuration.md": {"deployment": deployment_keys, "training": training_keys},
    "docs/loras.md": {"methods": few_step_methods},
    "docs/operating.md": {"metrics": metrics},
}
"""Page -> name of the part -> what writes it."""


def written_pages() -> dict[str, str]:
    """Text of every page as it must be."""
    pages = {}
    for page, parts in PARTS.items():
        text = (ROOT / page).read_text(encoding="utf-8")
        for name, write in parts.items():
            text = replaced(text, name, write(), page=page)
        pages[page] = text
    return pages


def replaced(text: str, name: str, part: str, *, page: str) -> str:
    """`text` with `part` between the comments of `name`.

    Raises:
        ValueError: the page does not have exactly one place for it.
    """
    begin = f"<!-- generated: {name} (python -m reference) -->"
    end = f"<!-- end: {name} -->"
    pattern = re.compile(f"{re.escape(begin)}\n.*?{re.escape(end)}", re.DOTALL)
    if len(pattern.findall(text)) != 1:
        raise ValueError(f"{page}: there must be one part from {begin!r} to {end!r}")
    return pattern.sub(lambda _: f"{begin}\n{part}\n{end}", text)
