"""ONNX Runtime, imported in the one way that sends nothing to anybody.

From 1.29 the wheels for Linux have telemetry that is on by default. The import alone writes a device id and a
database below ~/.cache; each session's networks, sizes and speeds then go to its maker.
"""

from __future__ import annotations

import os
from types import ModuleType
from typing import Final

from intaglio.errors import MissingExtra

__all__ = ["TELEMETRY_VARIABLE", "onnx_runtime", "refuse_telemetry"]

TELEMETRY_VARIABLE: Final = "ORT_DISABLE_TELEMETRY"


def refuse_telemetry() -> None:
    """Switch the telemetry off, for this process and those that it starts. Call it before a library
    that imports onnxruntime. Somebody who has set the variable keeps what they said.
    """
    os.environ.setdefault(TELEMETRY_VARIABLE, "1")


def onnx_runtime(*, extra: str = "serve") -> ModuleType:
    """The module `onnxruntime`.

    Raises:
        MissingExtra: it is not installed; names `extra`.
    """
    refuse_telemetry()
    try:
        import onnxruntime  # type: ignore[import-untyped]  # noqa: PLC0415
    except ImportError as error:
        raise MissingExtra("onnxruntime", extra=extra) from error
    module: ModuleType = onnxruntime
    return module
