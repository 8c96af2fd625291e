"""What opening a ControlNet's engine consists of, and other ways to do it, on a card.

Each way ends with the engine's weights on the card and is timed a few times. What TensorRT refuses is kept
with the reason, and does not end the part.
"""

from __future__ import annotations

import gc
import mmap
import os
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any, Final

import numpy as np

from benchmarks.measuring.case import Case
from benchmarks.measuring.timing import Stopwatch
from benchmarks.speed.engines import upload_noise
from intaglio.builds.manifest import BuildManifest
from intaglio.contract.sdxl import axis_sizes, controlnet_name, network_spec
from intaglio.engines.buffers import allocate_tensors
from intaglio.engines.opening import open_backend
from intaglio.errors import IntaglioError

__all__ = ["measure_opening"]

_TIMES: Final = 3


def measure_opening(manifest: BuildManifest, folder: Path, case: Case) -> dict[str, Any]:
    """Seconds of each step of the way that serving takes, and of other ways to load the weights."""
    assert case.control is not None
    network = controlnet_name(case.control)
    path = folder / manifest.networks[network].path
    values: dict[str, Any] = {"plan_mib": path.stat().st_size >> 20}
    with ExitStack() as stack:
        backend = open_backend(manifest)
        stack.callback(backend.close)
        watch = Stopwatch()
        for _ in range(_TIMES):
            _open_as_served(backend, manifest, path, case, watch)
        values["as served"] = watch.spreads()
        if manifest.runtime != "onnxruntime":
            values["other ways"] = _other_ways(backend, path)
    return values


def _open_as_served(backend: Any, manifest: BuildManifest, path: Path, case: Case, watch: Stopwatch) -> None:
    """Load the engine, bind it, run it twice, close it."""
    assert case.control is not None
    spec = network_spec(controlnet_name(case.control), manifest.architecture)
    sizes = axis_sizes(manifest.architecture, width=case.width, height=case.height)
    wanted = {axis: sizes[axis] for axis in spec.axis_names}
    with watch.lap("load"):
        engine = backend.load(spec, path, precision=manifest.precision)
    arrays = allocate_tensors(backend, engine, wanted)
    upload_noise(backend, arrays, [tensor.name for tensor in spec.inputs])
    backend.synchronize()
    with watch.lap("context"):
        bound = engine.bind(wanted, arrays)
    for name in ("first pass", "second pass"):
        with watch.lap(name):
            bound.run()
            backend.synchronize()
    del bound
    with watch.lap("close"):
        engine.close()


def _other_ways(backend: Any, path: Path) -> dict[str, Any]:
    """Seconds of each other way until the weights are on the card, or why it failed."""
    runtime = backend.library.runtime
    pinned = backend.hold(np.fromfile(path, np.uint8))
    ways: Mapping[str, Callable[[Stopwatch], None]] = {
        "from the mapped file": lambda watch: _from_mapped(runtime, path, watch),
        "from the disk": lambda watch: _from_disk(runtime, path, watch),
        "from pinned host memory": lambda watch: _whole(runtime, pinned, watch),
        "weights apart, from the mapped file": lambda watch: _apart_mapped(runtime, path, watch),
        "weights apart, from pinned host memory": lambda watch: _apart(runtime, pinned, watch),
    }
    found: dict[str, Any] = {}
    for name, way in ways.items():
        watch = Stopwatch()
        try:
            for _ in range(_TIMES):
                way(watch)
                gc.collect()  # the engine is gone before the next one comes
                backend.synchronize()
            found[name] = watch.spreads()
        except (IntaglioError, AttributeError, BufferError, RuntimeError, TypeError, ValueError) as error:
            found[name] = {"failed": f"{type(error).__name__}: {error}"}
        finally:
            if hasattr(runtime, "defer_weights_loading"):
                runtime.defer_weights_loading = False
    return found


@contextmanager
def _mapped(path: Path) -> Iterator[mmap.mmap]:
    with path.open("rb") as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as content:
        yield content


def _whole(runtime: Any, content: Any, watch: Stopwatch) -> None:
    with watch.lap("load"):
        plan = runtime.deserialize_cuda_engine(content)
    if plan is None:
        raise ValueError("TensorRT did not load it")


def _from_mapped(runtime: Any, path: Path, watch: Stopwatch) -> None:
    with _mapped(path) as content:
        _whole(runtime, content, watch)


def _from_disk(runtime: Any, path: Path, watch: Stopwatch) -> None:
    """As far as the kernel lets go of what it has read of the file."""
    with path.open("rb") as file:
        os.posix_fadvise(file.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)
    _from_mapped(runtime, path, watch)


def _apart(runtime: Any, content: Any, watch: Stopwatch) -> None:
    """The engine first, its weights afterwards: only these would have to move in a swap."""
    runtime.defer_weights_loading = True
    with watch.lap("engine"):
        plan = runtime.deserialize_cuda_engine(content)
    if plan is None:
        raise ValueError("TensorRT did not load it without weights")
    with watch.lap("load"):
        loaded = plan.load_weights(content)
    if not loaded:
        raise ValueError("TensorRT did not load the weights")


def _apart_mapped(runtime: Any, path: Path, watch: Stopwatch) -> None:
    with _mapped(path) as content:
        _apart(runtime, content, watch)
