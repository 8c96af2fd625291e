"""Missing libraries name the extra; CUDA's status codes and plans that do not load are errors."""

from __future__ import annotations

import sys
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any

import pytest

from intaglio.engines.card import CardMemory
from intaglio.engines.tensorrt import library as library_module
from intaglio.engines.tensorrt.library import Cuda, TensorRT, import_tensorrt, open_tensorrt
from intaglio.errors import DeviceFailed, EngineMismatch, MissingExtra, Unavailable

ANYTHING: Any = None


def library(runtime: Any = None) -> TensorRT:
    data_types = SimpleNamespace(HALF="half", FLOAT="float")
    module = SimpleNamespace(__version__="10.1", DataType=data_types)
    return TensorRT("tensorrt", module, ANYTHING, runtime, "intaglio build configs/x.yaml")


@pytest.mark.parametrize("module", [None, ModuleType("tensorrt_rtx")], ids=["absent", "stubs only"])
def test_a_missing_library_names_the_extra(
    monkeypatch: pytest.MonkeyPatch, module: ModuleType | None
) -> None:
    monkeypatch.setitem(sys.modules, "tensorrt_rtx", module)
    with pytest.raises(MissingExtra, match=r"tensorrt_rtx.*pip install 'intaglio\[tensorrt\]'"):
        import_tensorrt("tensorrt-rtx")


def test_missing_cuda_names_the_extra(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "cuda.bindings.runtime", None)
    with pytest.raises(MissingExtra, match=r"cuda-python.*pip install 'intaglio\[tensorrt\]'"):
        Cuda()


def test_an_opened_library_logs_errors_with_its_own_logger(monkeypatch: pytest.MonkeyPatch) -> None:
    class Logger:
        ERROR = 1

        def __init__(self, level: int) -> None:
            self.level = level

    module: Any = ModuleType("tensorrt_rtx")
    module.Logger = Logger
    module.Runtime = lambda logger: ("runtime", logger)
    monkeypatch.setitem(sys.modules, "tensorrt_rtx", module)
    opened: Any = open_tensorrt("tensorrt-rtx", rebuild="")
    assert opened.logger.level == Logger.ERROR
    assert opened.runtime == ("runtime", opened.logger)
    assert open_tensorrt("tensorrt-rtx", rebuild="").logger is opened.logger


def test_cuda_status_codes_are_errors(monkeypatch: pytest.MonkeyPatch) -> None:
    runtime: Any = ModuleType("cuda.bindings.runtime")
    runtime.cudaError_t = SimpleNamespace(cudaSuccess=0, cudaErrorMemoryAllocation=2)
    runtime.cudaGetErrorString = lambda status: (0, b"out of memory" if status == 2 else "invalid")
    runtime.cudaMalloc = lambda size: (0, 0x100) if size < 10 else (2, None)
    runtime.cudaMemGetInfo = lambda: (0, 1, 2)
    runtime.cudaFree = lambda address: (1,)
    monkeypatch.setitem(sys.modules, "cuda.bindings.runtime", runtime)
    cuda = Cuda()
    assert cuda("cudaMalloc", 5) == 0x100
    assert cuda("cudaMemGetInfo") == (1, 2)
    with pytest.raises(Unavailable, match="cudaMalloc: out of memory") as caught:
        cuda("cudaMalloc", 50)
    assert not isinstance(caught.value, DeviceFailed), "the next call may succeed"
    with pytest.raises(DeviceFailed, match="cudaFree: invalid"):
        cuda("cudaFree", 0)


def test_a_plan_that_does_not_load_names_version_and_cure(tmp_path: Path) -> None:
    path = tmp_path / "unet.plan"
    path.write_bytes(b"plan")
    seen: list[bytes] = []
    accepting = library(SimpleNamespace(deserialize_cuda_engine=lambda content: seen.append(content[:]) or 1))
    assert accepting.load_plan(path, network="unet", gpu=1) == 1
    assert seen == [b"plan"]
    refusing = library(SimpleNamespace(deserialize_cuda_engine=lambda content: None))
    with pytest.raises(
        EngineMismatch,
        match=r"unet: unet.plan does not load with tensorrt 10\.1.* or the card's memory is full.*"
        "intaglio build configs/x",
    ):
        refusing.load_plan(path, network="unet", gpu=1)


def test_a_plan_that_does_not_load_is_not_damaged_where_the_card_is_full(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "unet.plan"
    path.write_bytes(b"p" * (3 << 20))
    refusing = library(SimpleNamespace(deserialize_cuda_engine=lambda content: None))

    def with_free(mebibytes: int) -> None:
        memory = {
            0: CardMemory(total=16 << 30, used=0, free=3 << 20),
            1: CardMemory(total=16 << 30, used=0, free=mebibytes << 20),
        }
        monkeypatch.setattr(library_module, "read_card_memory", memory.__getitem__)

    with_free(2)
    with pytest.raises(
        Unavailable, match="takes 3 MiB of the card's memory, of which 2 MiB are free"
    ) as full:
        refusing.load_plan(path, network="unet", gpu=1)
    assert "intaglio build" not in str(full.value), "to build again would not help"
    with_free(4)
    with pytest.raises(EngineMismatch, match="does not load"):
        refusing.load_plan(path, network="unet", gpu=1)

    def lost() -> None:
        raise DeviceFailed("cudaStreamSynchronize: an illegal memory access was encountered")

    with pytest.raises(DeviceFailed):
        refusing.load_plan(path, network="unet", gpu=1, check_card=lost)


def test_dtypes_both_ways() -> None:
    kind: Any = SimpleNamespace(name="HALF")
    assert library().numpy_dtype(kind) == "float16"
    assert library().data_type("float16") == "half"
    unknown: Any = SimpleNamespace(name="FP8")
    assert library().numpy_dtype(unknown) == "FP8"
    with pytest.raises(KeyError):
        library().data_type("bfloat16")


def test_only_tensorrt_rtx_is_asked_whether_a_pass_can_be_captured() -> None:
    refusing: Any = SimpleNamespace(is_stream_capturable=lambda stream: False)
    assert library().can_capture(refusing, 7)
    rtx = TensorRT("tensorrt-rtx", ANYTHING, ANYTHING, ANYTHING, "")
    assert not rtx.can_capture(refusing, 7)
