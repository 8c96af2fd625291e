"""Which version of a runtime's library is installed; the library itself is not imported."""

from __future__ import annotations

from importlib import metadata
from typing import Final

__all__ = ["DISTRIBUTIONS", "runtime_version"]

DISTRIBUTIONS: Final = {
    "onnxruntime": ("onnxruntime",),
    "tensorrt-rtx": ("tensorrt-rtx-cu12", "tensorrt-rtx"),
    "tensorrt": ("tensorrt",),
}
"""Packages that carry each runtime."""


def runtime_version(runtime: str) -> str | None:
    """Version of the library of `runtime`; None where it is not installed."""
    for name in DISTRIBUTIONS[runtime]:
        try:
            return metadata.version(name)
        except metadata.PackageNotFoundError:
            continue
    return None
