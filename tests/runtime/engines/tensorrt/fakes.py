"""A card and a plan without either: CUDA calls are logged, contexts record what they are given."""

from __future__ import annotations

from dataclasses import dataclass, field
from types import SimpleNamespace
from typing import Any

from intaglio.contract.tensors import NetworkSpec, TensorSpec
from intaglio.errors import DeviceFailed

NETWORK = NetworkSpec("toy", (TensorSpec("x", ("C", 4), "compute"),), (TensorSpec("y", ("C", 4), "compute"),))


@dataclass
class Cuda:
    """The card's log; memory is addresses only."""

    calls: list[str] = field(default_factory=list)
    free: list[int] = field(default_factory=list)
    addresses: int = 0x1000
    lost: bool = False
    """Whether the card has failed: it then says so whenever somebody waits for it."""

    @property
    def runtime(self) -> Any:
        kinds = SimpleNamespace(
            cudaMemcpyHostToDevice=1, cudaMemcpyDeviceToHost=2, cudaMemcpyDeviceToDevice=3
        )
        modes = SimpleNamespace(cudaStreamCaptureModeThreadLocal=1)
        return SimpleNamespace(cudaFree=self.free.append, cudaMemcpyKind=kinds, cudaStreamCaptureMode=modes)

    def __call__(self, function: str, *arguments: Any) -> Any:
        self.calls.append(function)
        if self.lost and function == "cudaStreamSynchronize":
            raise DeviceFailed(f"{function}: an illegal memory access was encountered")
        if function == "cudaMalloc":
            self.addresses += 0x1000
            return self.addresses
        return 7 if function == "cudaStreamCreate" else function


@dataclass
class Context:
    """`IExecutionContext`."""

    cuda: Cuda
    capturable: bool = True
    breaks_capture: bool = False
    works: bool = True
    takes_profiles: bool = True
    shapes: list[tuple[int, ...]] = field(default_factory=list)
    addresses: dict[str, int] = field(default_factory=dict)
    arena: int = 0
    profile: int | None = None

    def set_optimization_profile_async(self, profile: int, stream: int) -> bool:
        self.profile = profile
        return self.takes_profiles

    def set_device_memory(self, address: int, size: int) -> None:
        self.arena = address

    def set_input_shape(self, name: str, shape: tuple[int, ...]) -> bool:
        self.shapes.append(shape)
        return True

    def set_tensor_address(self, name: str, address: int) -> bool:
        self.addresses[name] = address
        return True

    def is_stream_capturable(self, stream: int) -> bool:
        return self.capturable

    def execute_async_v3(self, stream: int) -> bool:
        capturing = self.cuda.calls[-1:] == ["cudaStreamBeginCapture"]
        self.cuda.calls.append("enqueue")
        return self.works and not (capturing and self.breaks_capture)


class Plan:
    """`ICudaEngine` of `NETWORK` with two profiles: 1 to 3 chunks, and 4 to 8."""

    device_memory_size_v2 = 1024
    num_optimization_profiles = 2
    num_io_tensors = 2

    def __init__(self, context: Context | None, *, kind: str = "HALF", width: int = 4) -> None:
        self.context = context
        self.kind = kind
        self.width = width

    def get_tensor_name(self, index: int) -> str:
        return "xy"[index]

    def get_tensor_dtype(self, name: str) -> Any:
        return SimpleNamespace(name=self.kind)

    def get_tensor_shape(self, name: str) -> tuple[int, ...]:
        return (-1, self.width)

    def get_tensor_profile_shape(self, name: str, profile: int) -> list[tuple[int, ...]]:
        return [[(1, 4), (2, 4), (3, 4)], [(4, 4), (6, 4), (8, 4)]][profile]

    def create_execution_context(self, configuration: Any) -> Context | None:
        return self.context
