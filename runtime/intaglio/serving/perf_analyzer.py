"""Where NVIDIA's `perf_analyzer` is, and what it needs to start.

WAR: the package perf-analyzer 2.60 needs glibc 2.38. On older systems the binary inside the wheel
tritonclient 2.45.0 works. It needs a folder of its own, and on its library path libb64, which the packaged
Triton brings, and the CUDA runtime, which is a package.
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Mapping
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import Final

from intaglio.errors import IntaglioError

__all__ = ["REQUIREMENTS", "PerfAnalyzer", "find_perf_analyzer"]

REQUIREMENTS: Final = ("tritonclient==2.45.0", "nvidia-cuda-runtime-cu12")
"""`pip install --no-deps --target FOLDER` of these makes FOLDER a place that `find_perf_analyzer` takes."""
_LIBB64: Final = "libb64.so.0d"


@dataclass(frozen=True, slots=True)
class PerfAnalyzer:
    """The binary and the environment to run it in."""

    binary: Path
    environment: Mapping[str, str]


def find_perf_analyzer(folder: Path) -> PerfAnalyzer:
    """`perf_analyzer` on PATH, else the one in `folder`.

    Raises:
        IntaglioError: there is neither; says how to get one.
    """
    if found := shutil.which("perf_analyzer"):
        return PerfAnalyzer(Path(found), dict(os.environ))
    binary = folder / "bin" / "perf_analyzer"
    if not binary.is_file():
        command = f"pip install --no-deps --target {folder} {' '.join(REQUIREMENTS)}"
        raise IntaglioError(f"no perf_analyzer on PATH; run: {command}")
    libraries = folder / "lib"
    libraries.mkdir(exist_ok=True)
    packaged = find_spec("pytriton")
    for place in (packaged.submodule_search_locations or ()) if packaged else ():
        for library in (Path(place).parent / "nvidia_pytriton.libs").glob("libb64-*.so.*"):
            link = libraries / _LIBB64
            if not link.exists():
                link.unlink(missing_ok=True)
                link.symlink_to(library)
    path = [
        str(libraries),
        str(folder / "nvidia" / "cuda_runtime" / "lib"),
        os.environ.get("LD_LIBRARY_PATH", ""),
    ]
    return PerfAnalyzer(binary, {**os.environ, "LD_LIBRARY_PATH": os.pathsep.join(filter(None, path))})
