"""LoRA files in memory: how many bytes are kept, and what happens where the host has no memory."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from intaglio.engines.interface import Array
from intaglio.errors import DeviceFailed, SwapFailed, Unavailable
from intaglio.loras import recipes
from intaglio.loras.merge import LoraMerge
from intaglio.loras.recipes import SetRecipes

from .world import LORAS, World, assert_equals_fresh, open_world


@pytest.fixture
def world(files: Path, tmp_path: Path, merge: LoraMerge) -> World:
    return open_world(files, tmp_path, merge=merge)


def bytes_of(world: World, name: str) -> int:
    _, file = world.switch._recipes.opened(world.lora(name))
    return file.nbytes


@pytest.fixture
def count_reads(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """LoRAs whose files are read from now on."""
    reads: list[str] = []
    read = SetRecipes._read

    def counted(self: SetRecipes, lora: Any) -> Any:
        reads.append(lora.id)
        return read(self, lora)

    monkeypatch.setattr(SetRecipes, "_read", counted)
    return reads


def test_files_are_kept_up_to_a_number_of_bytes(
    world: World, files: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, count_reads: list[str]
) -> None:
    sizes = {name: bytes_of(world, name) for name in LORAS}
    most = sizes["style"] + sizes["character"]
    monkeypatch.setattr(recipes, "KEPT_BYTES", most)
    small = open_world(files, tmp_path / "small", merge=world.switch._merge)
    count_reads.clear()
    for name in ("style", "character", "style", "locon", "style-kohya", "style"):
        small.switch._recipes.opened(small.lora(name))
        assert small.switch._recipes._files.size <= most
    assert count_reads[:2] == ["style", "character"]
    assert count_reads[2] == "locon", "style was kept"
    for _ in range(2):
        small.switch.ensure(tuple(small.lora(name) for name in LORAS))  # more than is kept
        assert_equals_fresh(small, tuple(small.lora(name) for name in LORAS))
        small.switch.ensure(())
    assert small.is_pristine()


def failing_hold(
    world: World, monkeypatch: pytest.MonkeyPatch, error: Exception, *, until: Callable[[], bool]
) -> list[int]:
    """Pinning fails with `error` until `until` says so; what is kept at each failure."""
    merge = world.switch._merge
    assert merge is not None
    hold = merge.backend.hold
    kept: list[int] = []

    def held(values: Array) -> Array:
        if until():
            return hold(values)
        kept.append(world.switch._recipes._files.size)
        raise error

    monkeypatch.setattr(merge.backend, "hold", held)
    return kept


@pytest.mark.parametrize(
    "error", [Unavailable("cudaHostAlloc: out of memory"), MemoryError("Unable to allocate")]
)
def test_without_memory_for_a_file_the_others_are_forgotten(
    world: World, monkeypatch: pytest.MonkeyPatch, error: Exception
) -> None:
    world.switch.ensure((world.lora("style"),))
    files = world.switch._recipes._files
    with monkeypatch.context() as full:
        kept = failing_hold(world, full, error, until=lambda: files.size == 0)
        world.switch.ensure((world.lora("character"),))
    assert len(kept) == 1
    assert_equals_fresh(world, (world.lora("character"),))


def test_a_file_that_never_fits_is_tried_twice(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    world.switch.ensure((world.lora("style"),))
    out = Unavailable("cudaHostAlloc: out of memory")
    kept = failing_hold(world, monkeypatch, out, until=lambda: False)
    with pytest.raises(SwapFailed, match="out of memory; still resident: style@1"):
        world.switch.ensure((world.lora("character"),))
    assert len(kept) == 2
    assert kept[1] == 0


def test_a_card_that_failed_is_not_tried_again(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    world.switch.ensure((world.lora("style"),))
    lost = DeviceFailed("cudaHostAlloc: an illegal memory access was encountered")
    kept = failing_hold(world, monkeypatch, lost, until=lambda: False)
    with pytest.raises(DeviceFailed):
        world.switch.ensure((world.lora("character"),))
    assert len(kept) == 1
