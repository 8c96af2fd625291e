"""The Python that runs this process, to start another one with."""

from __future__ import annotations

import sys
from pathlib import Path

__all__ = ["interpreter"]


def interpreter() -> str:
    """The Python of this process. In Triton's stub `sys.executable` may be another program or empty."""
    named = Path(sys.executable or "")
    if named.name.startswith("python") and named.is_file():
        return str(named)
    return str(Path(sys.prefix, "bin", "python3"))
