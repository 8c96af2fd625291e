"""Engines that joined weights: what belongs together is written together."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from safetensors.torch import load_file, save_file

from intaglio.contract.lora_registry import ResolvedLora
from intaglio.loras.switch import LoraSwitch

from ...refitting import Plan, refittable_engine
from .world import World, assert_equals_fresh, open_world, published, refused_by_engine

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
