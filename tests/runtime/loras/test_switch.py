"""Sets applied in a running process: equal to diffusers' own fusing, and exactly undone."""

from __future__ import annotations

import random
from pathlib import Path

import numpy as np
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from intaglio.loras.sets import set_digest
from intaglio.loras.targets import SWAPPED

from ...checkpoint import Checkpoint
from .world import LORAS, World, open_world

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
    for component in SWAPPED:
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
