"""An engine without a card: its checks, one context for each profile, and what is left after closing."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest

from intaglio.contract.sdxl import LORA_MERGE
from intaglio.engines.tensorrt.context import TensorRTBound
from intaglio.engines.tensorrt.device import Device
from intaglio.engines.tensorrt.engine import ContextSettings, TensorRTEngine, context_settings
from intaglio.engines.tensorrt.library import LibraryName, TensorRT
from intaglio.engines.tensorrt.refit import PlanRefitter
from intaglio.engines.tensorrt.runtime_cache import RuntimeCaches
from intaglio.errors import DeviceFailed, EngineMismatch, IntaglioError, Unavailable

from .fakes import NETWORK, Context, Cuda, Plan

ANYTHING: Any = None


def library(name: LibraryName = "tensorrt-rtx", module: Any = None) -> TensorRT:
    return TensorRT(name, module, ANYTHING, ANYTHING, "intaglio build configs/x.yaml")


class Cache:
    """`RuntimeCache`."""

    def __init__(self) -> None:
        self.writes = 0

    def write(self) -> None:
        self.writes += 1


def open_engine(plan: Any, *, cache: Any = None) -> TensorRTEngine:
    cuda: Any = Cuda()
    return TensorRTEngine(
        NETWORK,
        plan,
        precision="fp16",
        library=library(),
        device=Device(cuda, cuda_graph=True, gpu=0),
        settings=ContextSettings(None, RuntimeCaches(), cache),
    )


def bind(engine: TensorRTEngine, chunks: int) -> TensorRTBound:
    sizes = {"C": chunks}
    arrays = {spec.name: engine.device.allocate(spec.shape(sizes), "float16") for spec in NETWORK.tensors}
    return engine.bind(sizes, arrays)


@pytest.mark.parametrize(
    ("plan", "reason"),
    [
        (Plan(None, kind="FLOAT"), "toy.x: engine has float32, table float16"),
        (Plan(None, kind="BF16"), "toy.x: engine has BF16, table float16"),
        (Plan(None, width=5), r"toy.x: engine has shape \[-1, 5\], table \['C', 4\]"),
    ],
)
def test_a_plan_that_is_not_the_tables_is_refused(plan: Any, reason: str) -> None:
    with pytest.raises(EngineMismatch, match=rf"{reason}.*intaglio build configs/x.yaml"):
        open_engine(plan)


@pytest.mark.parametrize(("chunks", "profile"), [(1, 0), (3, 0), (4, 1)])
def test_the_first_profile_that_admits_the_sizes_is_used(chunks: int, profile: int) -> None:
    context = Context(Cuda())
    bind(open_engine(Plan(context)), chunks)
    assert context.profile == profile


def test_sizes_that_no_profile_admits_are_refused() -> None:
    with pytest.raises(EngineMismatch, match="toy: no profile for C=9"):
        bind(open_engine(Plan(Context(Cuda()))), 9)


def test_a_context_that_cannot_be_made_is_reported() -> None:
    with pytest.raises(Unavailable, match="no execution context for profile 0; is the card's memory full"):
        bind(open_engine(Plan(None)), 1)


def test_a_profile_that_is_refused_because_the_card_failed_says_so() -> None:
    engine = open_engine(Plan(Context(Cuda(), takes_profiles=False)))
    with pytest.raises(IntaglioError, match="toy: profile 0 refused"):
        bind(engine, 1)
    cuda: Any = engine.device.cuda
    cuda.lost = True
    with pytest.raises(DeviceFailed, match="illegal memory access"):
        bind(engine, 1)


@pytest.mark.parametrize(("specializes", "writes"), [(True, [1, 1, 2]), (False, [1, 1, 1])])
def test_a_cache_is_written_for_kernels_that_it_lacks(specializes: bool, writes: list[int]) -> None:
    """Those of a merge serve every shape; requests choose the ranks, so its shapes never come to an end."""
    cache: Any = Cache()
    caches = RuntimeCaches()
    settings = ContextSettings(None, caches, cache, specializes)
    for shape, expected in zip(((1, 4), (1, 4), (2, 4)), writes, strict=True):
        settings.expect_compilation((shape,))
        caches.write()
        assert cache.writes == expected
    assert len(settings.compiled) == writes[-1]


def test_passes_of_one_profile_share_a_context() -> None:
    engine = open_engine(Plan(Context(Cuda())))
    first = bind(engine, 1)
    assert bind(engine, 2)._context is first._context
    assert bind(engine, 4)._context is not first._context


def test_a_closed_engine_keeps_what_it_compiled_and_nothing_on_the_card() -> None:
    cache = Cache()
    engine = open_engine(Plan(Context(Cuda())), cache=cache)
    bound = bind(engine, 1)
    bound.run()
    engine.close()
    assert cache.writes == 1
    assert not hasattr(engine, "plan")
    assert not any(isinstance(value, Plan) for value in vars(bound._context).values())


def test_a_refit_forgets_captured_graphs(monkeypatch: pytest.MonkeyPatch) -> None:
    engine = open_engine(Plan(Context(Cuda())))
    bound = bind(engine, 1)
    before = bound._context.generation

    def refit(self: PlanRefitter, weights: Any, *, before_change: Any) -> None:
        before_change()

    monkeypatch.setattr(PlanRefitter, "refit", refit)
    engine.refit({})
    assert bound._context.generation == before + 1


class Configuration:
    """`IRuntimeConfig`."""

    def __init__(self) -> None:
        self.strategy: str | None = None
        self.dynamic_shapes_kernel_specialization_strategy: str | None = None
        self.cache: Any = None

    def set_execution_context_allocation_strategy(self, strategy: str) -> None:
        self.strategy = strategy

    def create_runtime_cache(self) -> Any:
        return SimpleNamespace(deserialize=lambda data: True)

    def set_runtime_cache(self, cache: Any) -> None:
        self.cache = cache


MODULE = SimpleNamespace(
    ExecutionContextAllocationStrategy=SimpleNamespace(USER_MANAGED="user managed"),
    DynamicShapesKernelSpecializationStrategy=SimpleNamespace(NONE="none", EAGER="eager"),
)


@pytest.mark.parametrize(("network", "kernels"), [("unet", "eager"), (LORA_MERGE, "none")])
def test_contexts_of_tensorrt_rtx_compile_before_their_first_pass(
    network: str, kernels: str, tmp_path: Any
) -> None:
    plan: Any = SimpleNamespace(create_runtime_config=Configuration)
    settings = context_settings(
        network, plan, library=library(module=MODULE), caches=RuntimeCaches(), path=tmp_path / "cache"
    )
    found = settings.configuration
    assert found.strategy == "user managed"
    assert found.dynamic_shapes_kernel_specialization_strategy == kernels
    assert found.cache is not None
    assert settings.cache is not None
    assert settings.specializes == (kernels == "eager")


def test_an_engine_that_is_opened_again_writes_nothing_again(tmp_path: Any) -> None:
    """ControlNets come and go, and the writing would be part of somebody's picture."""
    caches = RuntimeCaches()
    writes = []
    for path in (tmp_path / "pose", tmp_path / "canny", tmp_path / "pose"):
        cache: Any = Cache()
        settings = ContextSettings(None, caches, cache, compiled=caches.compiled(path))
        settings.expect_compilation(((1, 4),))
        settings.keep_compiled()
        writes.append(cache.writes)
    assert writes == [1, 1, 0]


def test_contexts_of_tensorrt_have_no_runtime_cache(tmp_path: Any) -> None:
    settings = context_settings(
        "unet",
        ANYTHING,
        library=library("tensorrt", MODULE),
        caches=RuntimeCaches(),
        path=tmp_path / "cache",
    )
    assert settings.configuration == "user managed"
    assert settings.cache is None
