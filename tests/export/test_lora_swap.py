"""Sets put on in a running process: equal to diffusers' own fusing, exactly undone, and never a mixture."""

from __future__ import annotations

import hashlib
import json
import random
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from safetensors.torch import load_file, save_file

from intaglio.contract.tensors import Precision
from intaglio.engines.interface import Array
from intaglio.engines.onnxruntime import HostArray
from intaglio.errors import EngineMismatch, IntaglioError, InvalidRequest, SwapFailed
from intaglio.loras.merge import LoraMerge
from intaglio.loras.sets import ResolvedLora, set_digest
from intaglio.loras.store import LoraStore
from intaglio.loras.switch import LoraSwitch
from intaglio.loras.targets import SWAPPED, SwapLayers
from intaglio.loras.tensor_files import map_tensor_file
from intaglio_export.weights.fuse import FUSABLE
from intaglio_export.weights.sources import Weights, load_network
from intaglio_train.lora_files import Adapter, UnetLevels, kohya_tensors, write_adapter

from ..refitting import Plan, refittable_engine
from .conftest import Checkpoint
from .test_lora_merge import open_merge

LORAS = ("style", "style-kohya", "character", "locon")
"""In diffusers' layout, in kohya's with and without text encoders, and with convolutions."""


@dataclass
class PlainEngine:
    """The weights of an engine, and what a test wants to go wrong."""

    weights: dict[str, Array]
    precision: str = "fp32"
    failures: int = 0
    error: type[Exception] = IntaglioError
    refits: list[set[str]] = field(default_factory=list)
    groups: tuple[frozenset[str], ...] = ()
    """What a compiler joined: given whole or refused."""

    def joined(self, sizes: Mapping[str, int]) -> tuple[frozenset[str], ...]:
        assert sizes == {name: values.size for name, values in self.weights.items()}
        return self.groups

    def refit(self, weights: Mapping[str, Any]) -> None:
        given = {
            name: values.values if isinstance(values, HostArray) else values
            for name, values in weights.items()
        }
        assert all(
            values.dtype == self.weights[name].dtype and values.shape == self.weights[name].shape
            for name, values in given.items()
        )
        self.refits.append(set(weights))
        if missing := {
            name for group in self.groups if group & set(weights) for name in group - set(weights)
        }:
            raise EngineMismatch(
                f"refit also needs {', '.join(sorted(missing)[:5])}", command="intaglio build x.yaml"
            )
        if self.failures:
            self.failures -= 1
            for name, values in given.items():  # whatever it left there must not be served
                self.weights[name] = np.full_like(values, 7)
            raise self.error("refit failed; see the log")
        for name, values in given.items():
            self.weights[name] = values.copy()


@dataclass
class World:
    """A switch over plain weights, and the networks they came from."""

    switch: LoraSwitch
    engines: dict[Any, PlainEngine]
    pristine: dict[Any, dict[str, Array]]
    store: LoraStore
    digests: dict[str, str]

    def lora(self, name: str, weight: float = 1.0) -> ResolvedLora:
        return ResolvedLora(id=name, sha256=self.digests[name], weight=weight)

    def is_pristine(self) -> bool:
        return all(
            np.array_equal(values, self.pristine[component][name])
            for component, engine in self.engines.items()
            for name, values in engine.weights.items()
        )

    def module(self, component: Any, module: str) -> Array:
        """The weights of a module, as torch has them."""
        weights = self.engines[component].weights
        stem = f"{'unet' if component == 'unet' else 'network'}.{module}.weight"
        return weights[stem] if stem in weights else weights[f"{stem}.T"].T


def write_locon(path: Path, checkpoint: Checkpoint) -> None:
    """Convolutions of a resnet and a downsampler beside attention, as LyCORIS trains them."""
    unet = load_network("unet", Weights(checkpoint.base / "unet"))
    torch.manual_seed(7)
    matrices: Any = {}
    for name, layer in unet.named_modules():
        if name.endswith((".conv1", "downsamplers.0.conv", ".conv_shortcut")):
            kernel = layer.kernel_size
            matrices["unet", name] = (
                0.1 * torch.randn(3, layer.in_channels, *kernel),
                0.1 * torch.randn(layer.out_channels, 3, 1, 1),
            )
        elif name.endswith("attn1.to_v"):
            matrices["unet", name] = (
                0.1 * torch.randn(3, layer.in_features),
                0.1 * torch.randn(layer.out_features, 3),
            )
    levels = UnetLevels(unet.config.layers_per_block, frozenset({0, 1}))
    write_adapter(path, kohya_tensors(Adapter(matrices, rank=3, alpha=1.5, levels=levels)), {})


def write_pristine_of(path: Path, component: str, network: Any, *, dtype: torch.dtype) -> None:
    """As a build does it: matrices of linear layers are transposed in the graph."""
    wrapper = "unet" if component == "unet" else "network"
    tensors = {}
    for name, values in network.named_parameters():
        if name.endswith(".weight") and values.ndim in (2, 4) and "embeddings." not in name:
            matrix = values.ndim == 2
            tensors[f"{wrapper}.{name}{'.T' if matrix else ''}"] = (
                (values.t() if matrix else values).detach().to(dtype).contiguous()
            )
    save_file(tensors, path)


@pytest.fixture(scope="module")
def files(checkpoint: Checkpoint, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("swap")
    write_locon(folder / "locon.safetensors", checkpoint)
    for name in LORAS[:3]:
        (folder / f"{name}.safetensors").write_bytes(checkpoint.lora(name).read_bytes())
    for component in SWAPPED:
        network = load_network(component, Weights(checkpoint.base / component))
        write_pristine_of(folder / f"{component}.pristine", component, network, dtype=torch.float32)
    return folder


def open_world(
    files: Path, folder: Path, *, precision: Precision = "fp32", merge: LoraMerge | None = None
) -> World:
    store = LoraStore(folder / "loras")
    digests = {name: store.put(name, files / f"{name}.safetensors")[0] for name in LORAS}
    pristine_files = {component: map_tensor_file(files / f"{component}.pristine") for component in SWAPPED}
    dtype = "float16" if precision == "fp16" else "float32"
    pristine = {
        component: {name: file.read(name).astype(dtype) for name in file.tensors}
        for component, file in pristine_files.items()
    }
    engines: Any = {component: PlainEngine(dict(values), precision) for component, values in pristine.items()}
    switch = LoraSwitch(engines, SwapLayers(pristine_files), store=store, threads=1, merge=merge)
    return World(switch, engines, pristine, store, digests)


@pytest.fixture(scope="module")
def merge(tmp_path_factory: pytest.TempPathFactory) -> LoraMerge:
    """Stages a few matrices at a time."""
    return open_merge(tmp_path_factory.mktemp("merge"), precision="fp32", staging_bytes=1 << 16)


@pytest.fixture(params=["host", "merge"])
def world(request: pytest.FixtureRequest, files: Path, tmp_path: Path, merge: LoraMerge) -> World:
    """New weights computed on the host, or where the engines are."""
    return open_world(files, tmp_path, merge=merge if request.param == "merge" else None)


@pytest.fixture(scope="module", params=["host", "merge"])
def shared_world(
    request: pytest.FixtureRequest, files: Path, tmp_path_factory: pytest.TempPathFactory, merge: LoraMerge
) -> World:
    return open_world(
        files, tmp_path_factory.mktemp("shared"), merge=merge if request.param == "merge" else None
    )


SETS = st.dictionaries(st.sampled_from(LORAS), st.floats(-1.5, 1.5, width=16).filter(bool), max_size=4)


@settings(
    max_examples=8,
    deadline=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture],
    derandomize=True,
)
@given(chosen=SETS)
def test_random_sets_equal_diffusers_fuse(
    checkpoint: Checkpoint, files: Path, shared_world: World, chosen: dict[str, float]
) -> None:
    """One world for all examples: each set follows whatever was resident before."""
    world = shared_world
    world.switch.ensure(tuple(world.lora(name, weight) for name, weight in chosen.items()))
    pipeline = checkpoint.pipeline()
    for name in sorted(chosen):
        pipeline.load_lora_weights(str(files / f"{name}.safetensors"), adapter_name=name.replace("-", "_"))
    if chosen:
        names = [name.replace("-", "_") for name in sorted(chosen)]
        pipeline.set_adapters(names, [chosen[name] for name in sorted(chosen)])
        pipeline.fuse_lora(adapter_names=names)
        pipeline.unload_lora_weights()
    for component in FUSABLE:
        for name, expected in getattr(pipeline, component).named_parameters():
            module = name.removesuffix(".weight")
            if name.endswith(".weight") and expected.ndim in (2, 4) and "embeddings." not in name:
                np.testing.assert_allclose(
                    world.module(component, module), expected.detach().numpy(), atol=2e-6, err_msg=name
                )


def test_none_is_the_base_bit_for_bit_after_fifty_random_swaps(world: World) -> None:
    rng = random.Random(0)
    for _ in range(50):
        chosen = rng.sample(LORAS, rng.randrange(1, 5))
        world.switch.ensure(tuple(world.lora(name, round(rng.uniform(-2, 2), 3)) for name in chosen))
        assert not world.is_pristine()
    assert world.switch.ensure(()) > 0
    assert world.is_pristine()
    assert world.switch.counts.swaps == 51


def test_half_precision_is_the_float32_sum_cast_once(files: Path, tmp_path: Path) -> None:
    exact, half = open_world(files, tmp_path / "a"), open_world(files, tmp_path / "b", precision="fp16")
    for world in (exact, half):
        world.switch.ensure((world.lora("style", 0.7), world.lora("locon", -0.4)))
    for component, engine in half.engines.items():
        for name, values in engine.weights.items():
            np.testing.assert_array_equal(values, exact.engines[component].weights[name].astype(np.float16))
    half.switch.ensure(())
    assert half.is_pristine()


def test_order_and_repetition_cost_nothing(world: World) -> None:
    first, second = world.lora("style"), world.lora("character", 0.5)
    assert world.switch.ensure((first, second)) > 0
    assert world.switch.ensure((second, first)) == 0
    assert world.switch.counts.swaps == 1


def test_only_what_differs_is_written(world: World) -> None:
    world.switch.ensure((world.lora("style"),))
    assert not world.engines["text_encoder"].refits, "the style has no text part"
    world.switch.ensure(())
    world.engines["unet"].refits.clear()
    world.switch.ensure((world.lora("character"),))
    touched = set().union(*world.engines["unet"].refits)
    assert touched < set(world.pristine["unet"])
    world.engines["unet"].refits.clear()
    world.switch.ensure(())
    assert set().union(*world.engines["unet"].refits) == touched
    assert world.is_pristine()


def test_text_digest_follows_the_text_encoders_only(world: World) -> None:
    none = world.switch.text_digest
    world.switch.ensure((world.lora("style"), world.lora("locon")))
    assert world.switch.text_digest == none
    world.switch.ensure((world.lora("style"), world.lora("character")))
    assert world.switch.text_digest == set_digest((world.lora("character"),))


# --- engines that joined weights: what belongs together is written together ---------------------------------------------

PARTS = ("q_proj", "to_q", "attn2.to_k")
"""A LoRA of the queries, and of cross-attention's keys without its values."""


def joined_weights(names: Iterable[str]) -> tuple[frozenset[str], ...]:
    """As TensorRT-RTX joins them in an engine of SDXL: queries, keys and values of one input; keys and values
    of every cross-attention, as all read the same text.
    """
    groups: dict[str, set[str]] = {}
    for name in names:
        block, _, layer = name.removesuffix(".T").removesuffix(".weight").rpartition(".")
        if layer in ("to_k", "to_v") and block.endswith("attn2"):
            groups.setdefault("text", set()).add(name)
        elif layer in ("to_q", "to_k", "to_v", "q_proj", "k_proj", "v_proj") and not block.endswith("attn2"):
            groups.setdefault(block, set()).add(name)
    return tuple(map(frozenset, groups.values()))


@pytest.fixture
def joining(world: World) -> World:
    for engine in world.engines.values():
        engine.groups = joined_weights(engine.weights)
    assert {len(group) for group in world.engines["unet"].groups} > {3}
    return world


def some_layers(world: World, files: Path, folder: Path) -> ResolvedLora:
    """The character's LoRA, but only of `PARTS`."""
    state = {
        name: values
        for name, values in load_file(files / "character.safetensors").items()
        if any(part in name for part in PARTS)
    }
    save_file(state, folder / "some.safetensors")
    return published(world, (folder / "some.safetensors").read_bytes())


def test_a_lora_of_some_of_the_joined_weights(joining: World, files: Path, tmp_path: Path) -> None:
    """The others get the values that they have in the asked set: pristine ones, or another LoRA's."""
    world, some = joining, some_layers(joining, files, tmp_path)
    sets = [
        (some,),
        (world.lora("style", 0.5),),
        (some, world.lora("style", -1.0)),
        (some,),
        (world.lora("locon"), some),
        (some,),
    ]
    for loras in sets:
        world.switch.ensure(loras)
        assert_equals_fresh(world, loras)
    world.engines["text_encoder"].refits.clear()
    world.switch.ensure(())
    assert world.is_pristine()
    assert set().union(*world.engines["text_encoder"].refits) == set().union(
        *world.engines["text_encoder"].groups
    )
    assert world.switch.counts.failures == 0


def test_turns_do_not_cut_through_what_is_joined(joining: World, files: Path, tmp_path: Path) -> None:
    world, merge = joining, joining.switch._merge
    some = some_layers(world, files, tmp_path)
    world.switch.ensure((world.lora("style"), some))
    weights, refits = world.engines["unet"].weights, world.engines["unet"].refits
    if merge is not None:
        text = sum(weights[name].nbytes for name in max(world.engines["unet"].groups, key=len))
        assert text > merge.staging_bytes, "the test is about a group that is larger than a turn"
        assert len(refits) > 2
        assert all(
            sum(weights[name].nbytes for name in turn) <= max(text, merge.staging_bytes) for turn in refits
        )
    assert sum(map(len, refits)) == len(set().union(*refits)), "nothing is written twice"
    assert_equals_fresh(world, (world.lora("style"), some))


def test_a_refit_that_fails_amid_what_is_joined(joining: World, files: Path, tmp_path: Path) -> None:
    """Weights that were only written along are repaired with the rest."""
    world, some = joining, some_layers(joining, files, tmp_path)
    world.engines["unet"].failures = 3
    assert "nothing is resident" in refused_by_engine(world, some)
    refused_by_engine(world, some)
    world.switch.ensure(())
    assert world.is_pristine()


def test_through_the_engine_of_tensorrt(files: Path, tmp_path: Path) -> None:
    """Its own code over a refitter that joins weights: partial sets go on, and off again to the bit."""
    world = open_world(files, tmp_path)
    some = some_layers(world, files, tmp_path)
    plans = {
        component: Plan({name: values.copy() for name, values in weights.items()}, joined_weights(weights))
        for component, weights in world.pristine.items()
    }
    engines: Any = {component: refittable_engine(plan) for component, plan in plans.items()}
    switch = LoraSwitch(engines, world.switch._layers, store=world.store, threads=1)
    switch.warm_up()
    for loras in ((some,), (world.lora("locon", 0.5), some), (world.lora("style"),), (some,)):
        switch.ensure(loras)
        world.switch.ensure(loras)
        for component, plan in plans.items():
            for name, values in plan.weights.items():
                np.testing.assert_array_equal(values, world.engines[component].weights[name])
    switch.ensure(())
    assert all(
        np.array_equal(values, world.pristine[component][name])
        for component, plan in plans.items()
        for name, values in plan.weights.items()
    )


# --- faults: the set before serves on, and no mixture ever does ---------------------------------------------------------


def refused(world: World, *loras: ResolvedLora, error: type[IntaglioError] = InvalidRequest) -> str:
    """Ask for a set that cannot be applied while `style` is resident; it stays so, to the bit."""
    world.switch.ensure((world.lora("style"),))
    before = {component: dict(engine.weights) for component, engine in world.engines.items()}
    with pytest.raises(error) as failed:
        world.switch.ensure(loras)
    message = str(failed.value)
    assert ("still resident: style@1" in message) == (error is SwapFailed)
    assert world.switch.resident == (world.lora("style"),)
    for component, engine in world.engines.items():
        assert all(np.array_equal(values, before[component][name]) for name, values in engine.weights.items())
    assert world.switch.ensure((world.lora("style"),)) == 0, "it serves on"
    assert world.switch.counts.failures == 1
    return message


def published(world: World, data: bytes) -> ResolvedLora:
    digest = hashlib.sha256(data).hexdigest()
    world.store.path(digest).write_bytes(data)
    return ResolvedLora(id="bad", sha256=digest, weight=1.0)


def test_a_truncated_file(world: World, files: Path) -> None:
    bad = published(world, (files / "style.safetensors").read_bytes()[:-100])
    assert "cut short or damaged" in refused(world, bad)


def test_a_file_replaced_after_it_was_published(world: World, files: Path) -> None:
    bad = published(world, (files / "character.safetensors").read_bytes() + b" ")
    world.store.path(bad.sha256).write_bytes((files / "character.safetensors").read_bytes())
    assert "changed after it was published" in refused(world, bad, error=SwapFailed)


def test_a_missing_file(world: World) -> None:
    gone = ResolvedLora(id="gone", sha256="0" * 64, weight=1.0)
    assert "No such file" in refused(world, gone, error=SwapFailed)


def test_values_that_are_not_finite(world: World, files: Path, tmp_path: Path) -> None:
    state = load_file(files / "style.safetensors")
    next(iter(state.values()))[0, 0] = float("nan")
    save_file(state, tmp_path / "nan.safetensors")
    assert "not finite" in refused(
        world, published(world, (tmp_path / "nan.safetensors").read_bytes()), world.lora("character")
    )


@pytest.mark.parametrize(
    ("prefix", "reason"),
    [("other.", "keys name no layer"), ("lora_unet_double_blocks_0_img_attn_qkv.", "a Flux LoRA")],
)
def test_unknown_keys_and_another_base(
    world: World, files: Path, tmp_path: Path, prefix: str, reason: str
) -> None:
    state = {f"{prefix}{name}": values for name, values in load_file(files / "style.safetensors").items()}
    save_file(state, tmp_path / "foreign.safetensors")
    assert reason in refused(
        world, world.lora("character"), published(world, (tmp_path / "foreign.safetensors").read_bytes())
    )


def test_weights_that_overflow_half_precision(files: Path, tmp_path: Path) -> None:
    world = open_world(files, tmp_path, precision="fp16")
    state = {name: 2000 * values.float() for name, values in load_file(files / "style.safetensors").items()}
    save_file(state, tmp_path / "large.safetensors")
    assert "would not be finite" in refused(
        world, published(world, (tmp_path / "large.safetensors").read_bytes())
    )


def test_layers_that_the_build_does_not_swap(files: Path, tmp_path: Path) -> None:
    """As `swap: transformer` builds it: kernels are listed, and have no weight to replace."""
    tensors = load_file(files / "unet.pristine")
    kernels = {name: values for name, values in tensors.items() if values.ndim == 4}
    frozen = {
        name.removeprefix("unet.").removesuffix(".weight"): values.shape for name, values in kernels.items()
    }
    kept = {name: values for name, values in tensors.items() if name not in kernels}
    save_file(kept, tmp_path / "unet.pristine", metadata={"frozen": json.dumps(frozen)})
    for name in [*LORAS, *SWAPPED]:
        for path in files.glob(f"{name}.*"):
            if path.name != "unet.pristine":
                (tmp_path / path.name).write_bytes(path.read_bytes())
    world = open_world(tmp_path, tmp_path)
    message = refused(world, world.lora("locon"))
    assert "that this build cannot swap, such as unet." in message
    assert "build with swap: all" in message


@pytest.mark.parametrize("component", SWAPPED)
def test_a_refit_that_fails_on_the_way(world: World, component: Any) -> None:
    """Whichever network fails, those before it get the old set's weights back."""
    world.switch.ensure((world.lora("style"),))
    world.engines[component].failures = 1
    if component == "text_encoder":
        world.engines[component].refits.clear()
    message = refused_by_engine(world, world.lora("character"))
    assert "refit failed" in message
    assert "still resident: style@1" in message
    assert_equals_fresh(world, (world.lora("style"),))


@pytest.mark.parametrize("component", SWAPPED)
def test_what_breaks_in_the_middle_never_leaves_a_mixture(world: World, component: Any) -> None:
    """An error that nobody foresaw, such as one of the driver: whatever is asked next is written anew."""
    world.switch.ensure((world.lora("style"),))
    world.engines[component].failures, world.engines[component].error = 1, RuntimeError
    with pytest.raises(RuntimeError):
        world.switch.ensure((world.lora("character"),))
    assert world.switch.resident is None
    assert world.switch.ensure((world.lora("style"),)) > 0, "it was resident before, and is not any more"
    assert_equals_fresh(world, (world.lora("style"),))
    world.switch.ensure(())
    assert world.is_pristine()


def test_a_refit_that_keeps_failing_serves_nothing_until_one_succeeds(world: World) -> None:
    world.switch.ensure((world.lora("style"),))
    world.engines["unet"].failures = 3
    assert "nothing is resident" in refused_by_engine(world, world.lora("character"))
    assert world.switch.resident is None
    assert "nothing is resident" in refused_by_engine(world, world.lora("style")), (
        "not even the set before: its weights are unknown"
    )
    world.switch.ensure((world.lora("style"),))
    assert_equals_fresh(world, (world.lora("style"),))
    world.switch.ensure(())
    assert world.is_pristine()


def refused_by_engine(world: World, *loras: ResolvedLora) -> str:
    with pytest.raises(SwapFailed) as failed:
        world.switch.ensure(loras)
    return str(failed.value)


def assert_equals_fresh(world: World, loras: tuple[ResolvedLora, ...]) -> None:
    """The weights are those of a switch that never had another set on."""
    engines: Any = {component: PlainEngine(dict(values)) for component, values in world.pristine.items()}
    LoraSwitch(engines, world.switch._layers, store=world.store, threads=1, merge=world.switch._merge).ensure(
        loras
    )
    for component, engine in engines.items():
        assert all(
            np.array_equal(values, world.engines[component].weights[name])
            for name, values in engine.weights.items()
        )
