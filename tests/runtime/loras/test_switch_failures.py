"""Faults while a set is applied: the set before serves on, and no mixture ever does."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from safetensors.torch import load_file, save_file

from intaglio.contract.lora_registry import ResolvedLora
from intaglio.errors import DeviceFailed, IntaglioError, InvalidRequest, SwapFailed, Unavailable
from intaglio.loras.targets import SWAPPED

from .world import World, assert_equals_fresh, open_world, published, refused_by_engine


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
    """As `swap: transformer` builds it: kernels are listed, but no weight of theirs can be replaced."""
    tensors = load_file(files / "unet.pristine")
    kernels = {name: values for name, values in tensors.items() if values.ndim == 4}
    frozen = {
        name.removeprefix("unet.").removesuffix(".weight"): values.shape for name, values in kernels.items()
    }
    kept = {name: values for name, values in tensors.items() if name not in kernels}
    save_file(kept, tmp_path / "unet.pristine", metadata={"frozen": json.dumps(frozen)})
    for path in files.iterdir():
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


def test_a_card_that_fails_while_the_set_before_is_restored(world: World) -> None:
    """A swap without memory is refused, but then the card is lost: the process has to hear of it."""
    world.switch.ensure((world.lora("style"),))
    engine = world.engines["unet"]
    errors = [
        Unavailable("cudaMalloc: out of memory"),
        DeviceFailed("cudaMemcpyAsync: an illegal memory access was encountered"),
    ]

    def refit(weights: Any) -> None:
        raise errors.pop(0)

    engine.refit = refit  # type: ignore[method-assign]
    with pytest.raises(DeviceFailed, match="illegal memory access"):
        world.switch.ensure((world.lora("character"),))
    assert errors == []
    assert world.switch.resident is None


def test_nothing_is_restored_on_a_card_that_failed(world: World) -> None:
    world.switch.ensure((world.lora("style"),))
    engine = world.engines["unet"]
    engine.failures, engine.error = 2, DeviceFailed
    with pytest.raises(DeviceFailed, match="refit failed"):
        world.switch.ensure((world.lora("character"),))
    assert engine.failures == 1
    assert world.switch.counts.failures == 1


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
