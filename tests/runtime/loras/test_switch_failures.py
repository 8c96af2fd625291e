"""Faults while a set is applied: the set before serves on, and no mixture ever does."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from safetensors.torch import load_file, save_file

from intaglio.contract.lora_registry import ResolvedLora
from intaglio.errors import SwapFailed
from intaglio.loras.targets import SWAPPED

from .world import World, assert_equals_fresh, open_world, published, refused_by_engine


def refused(world: World, *loras: ResolvedLora) -> str:
    """Ask for a set that cannot be put on while `style` is resident; it stays so, to the bit."""
    world.switch.ensure((world.lora("style"),))
    before = {component: dict(engine.weights) for component, engine in world.engines.items()}
    with pytest.raises(SwapFailed) as failed:
        world.switch.ensure(loras)
    message = str(failed.value)
    assert "still resident: style@1" in message
    assert world.switch.resident == (world.lora("style"),)
    for component, engine in world.engines.items():
        assert all(np.array_equal(values, before[component][name]) for name, values in engine.weights.items())
    assert world.switch.ensure((world.lora("style"),)) == 0, "it serves on"
    assert world.switch.counts.failures == 1
    return message


def test_a_truncated_file(world: World, files: Path) -> None:
    bad = published(world, (files / "style.safetensors").read_bytes()[:-100])
    assert "cut short or damaged" in refused(world, bad)


def test_a_file_replaced_after_it_was_published(world: World, files: Path) -> None:
    bad = published(world, (files / "character.safetensors").read_bytes() + b" ")
    world.store.path(bad.sha256).write_bytes((files / "character.safetensors").read_bytes())
    assert "changed after it was published" in refused(world, bad)


def test_a_missing_file(world: World) -> None:
    assert "No such file" in refused(world, ResolvedLora(id="gone", sha256="0" * 64, weight=1.0))


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
