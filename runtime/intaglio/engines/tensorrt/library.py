"""The libraries: import, logger, dtypes, and CUDA calls whose status codes become errors."""

from __future__ import annotations

import functools
import mmap
import os
from collections.abc import Callable
from dataclasses import dataclass
from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, Literal

from intaglio.engines.card import read_card_memory
from intaglio.errors import DeviceFailed, EngineMismatch, IntaglioError, MissingExtra, Unavailable

if TYPE_CHECKING:
    # Types of both modules, from the package tensorrt-stubs where it is installed.
    import tensorrt as trt  # type: ignore[import-not-found,unused-ignore]

__all__ = [
    "Cuda",
    "LibraryName",
    "TensorRT",
    "import_tensorrt",
    "open_tensorrt",
    "tensorrt_logger",
    "turn_tf32_off",
]

LibraryName = Literal["tensorrt-rtx", "tensorrt"]
_MODULES: Final = {"tensorrt-rtx": "tensorrt_rtx", "tensorrt": "tensorrt"}
_NUMPY_OF_TENSORRT: Final = {"FLOAT": "float32", "HALF": "float16", "INT64": "int64", "UINT8": "uint8"}
_TENSORRT_OF_NUMPY: Final = {name: kind for kind, name in _NUMPY_OF_TENSORRT.items()}


@dataclass(frozen=True, slots=True)
class TensorRT:
    """One of the two libraries, opened on the card."""

    name: LibraryName
    module: Any
    logger: trt.ILogger
    runtime: trt.Runtime
    rebuild: str
    """The command that builds the engines again."""

    def mismatch(self, message: str) -> EngineMismatch:
        """The error of an engine that does not fit; it tells the user to rebuild."""
        return EngineMismatch(message, command=self.rebuild)

    def load_plan(
        self, path: Path, *, network: str, gpu: int, check_card: Callable[[], None] | None = None
    ) -> trt.ICudaEngine:
        """The engine in the file at `path`, on the card; `gpu` is CUDA's index of it.

        Raises:
            Unavailable: the card has less free memory than the engine's file has bytes.
            EngineMismatch: the library cannot load it on this card; it does not say why.
            DeviceFailed: as `check_card` raises it; the card has failed, and loads nothing more.
        """
        # Mapped, not read: a plan of SDXL's UNet is 5 GB, which the host need not hold beside the card.
        with path.open("rb") as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as content:
            plan: trt.ICudaEngine | None = self.runtime.deserialize_cuda_engine(content)
        if plan is None:
            if check_card is not None:
                check_card()
            raise self._load_error(path, network=network, gpu=gpu)
        return plan

    def _load_error(self, path: Path, *, network: str, gpu: int) -> IntaglioError:
        """Why a plan did not load, as far as one can tell: the library returns nothing for every reason."""
        size, memory = path.stat().st_size, read_card_memory(gpu)
        if memory is not None and memory.free < size:
            return Unavailable(
                f"{network}: {path.name} takes {size >> 20} MiB of the card's memory, of which "
                f"{memory.free >> 20} MiB are free; end other processes on the card, or use another card"
            )
        version = getattr(self.module, "__version__", "unknown")
        return self.mismatch(
            f"{network}: {path.name} does not load with {self.name} {version} on this card: it is damaged, "
            "made for another card or version, or the card's memory is full; the log says more"
        )

    def numpy_dtype(self, kind: trt.DataType) -> str:
        """Name of the numpy dtype of `kind`; TensorRT's own name where the tensor table has none."""
        name = str(kind.name)
        return _NUMPY_OF_TENSORRT.get(name, name)

    def data_type(self, dtype: str) -> trt.DataType:
        """TensorRT's type of the numpy dtype called `dtype`; KeyError where the table has none."""
        return getattr(self.module.DataType, _TENSORRT_OF_NUMPY[dtype])

    def can_capture(self, context: trt.IExecutionContext, stream: int) -> bool:
        """Whether a pass of `context` may be captured into a CUDA graph."""
        # Only TensorRT-RTX can say that it may not.
        return self.name != "tensorrt-rtx" or bool(context.is_stream_capturable(stream))


def turn_tf32_off() -> None:
    """Compute float32 in float32, in this process and in those that it starts.

    Call it before anything opens CUDA. A value that the user has set stays.
    """
    # WAR: TensorRT-RTX 1.6.1 computes products and convolutions in TF32 whether `BuilderFlag.TF32` is set or
    # cleared: errors up to 2.4e-3, which this variable reduces to 2.4e-5 (docs/performance.md). It also makes
    # PyTorch's reference exact.
    os.environ.setdefault("NVIDIA_TF32_OVERRIDE", "0")


def open_tensorrt(name: LibraryName, *, rebuild: str) -> TensorRT:
    """The library called `name`; `rebuild` is the command that error messages recommend.

    Raises:
        MissingExtra: the library is not installed.
    """
    module = import_tensorrt(name)
    logger = tensorrt_logger(module)
    return TensorRT(name, module, logger, module.Runtime(logger), rebuild)


def import_tensorrt(name: LibraryName) -> Any:
    """The library's module.

    Raises:
        MissingExtra: it is not installed.
    """
    module_name = _MODULES[name]
    try:
        module = import_module(module_name)
    except ImportError as error:
        raise MissingExtra(module_name, extra="tensorrt") from error
    # The package tensorrt-stubs alone leaves an importable `tensorrt` that is empty.
    if not hasattr(module, "Runtime"):
        raise MissingExtra(module_name, extra="tensorrt")
    return module


@functools.cache
def tensorrt_logger(module: Any) -> Any:
    """The one logger of `module` in this process: errors go to standard output, as is the library's default.

    It is the library's own logger, never one written in Python, because that could deadlock. A build logs
    while it holds the library's lock, so a Python logger would then wait for the interpreter's lock. Another
    thread may hold that one while it waits for the library's lock (`set_optimization_profile_async` does not
    release the interpreter's).
    """
    return module.Logger(module.Logger.ERROR)


class Cuda:
    """`cuda.bindings.runtime` with its status codes raised as errors."""

    def __init__(self) -> None:
        """Raises MissingExtra where cuda-python is not installed."""
        try:
            self.runtime: Any = import_module("cuda.bindings.runtime")
        except ImportError as error:
            raise MissingExtra("cuda-python", extra="tensorrt") from error

    def __call__(self, function: str, *arguments: Any) -> Any:
        """The one result (or the tuple of results) of `function`.

        Raises:
            Unavailable: the card is out of memory; the next call may succeed.
            DeviceFailed: any other status. Most stay until the process ends, and CUDA does not say which.
        """
        status, *results = getattr(self.runtime, function)(*arguments)
        if status != self.runtime.cudaError_t.cudaSuccess:
            raise self._error(function, status)
        return results[0] if len(results) == 1 else tuple(results)

    def _error(self, function: str, status: Any) -> Unavailable:
        _, text = self.runtime.cudaGetErrorString(status)
        if isinstance(text, bytes):
            text = text.decode()
        message = f"{function}: {text}"
        if status == self.runtime.cudaError_t.cudaErrorMemoryAllocation:
            return Unavailable(message)
        return DeviceFailed(message)
