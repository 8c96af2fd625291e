"""Swaps of LoRA sets in this process: `python -m benchmarks.loras.swap CASE.json WORK_FOLDER`.

Seconds of a swap by the merge and by the host, in several turns, and of a step. Weights and images must be
what they should be, after random swaps too.
"""

from __future__ import annotations

import os
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Final

import numpy as np
import typer

from benchmarks.loras.drawing import Drawing, LoraSet, opened, served_loras
from benchmarks.loras.files import LoraCase
from benchmarks.measuring.results import write_part
from benchmarks.measuring.timing import spread
from benchmarks.measuring.watches import CARD, peak_mib
from intaglio.builds.manifest import BuildManifest
from intaglio.contract.config import Deployment
from intaglio.engines.card import PeakWatch
from intaglio.engines.interface import Array
from intaglio.errors import IntaglioError
from intaglio.loras.merge import LoraMerge
from intaglio.loras.store import LORAS_FOLDER, LoraStore
from intaglio.loras.switch import LoraSwitch

__all__ = ["SWAPPED_FILE", "staging_turns"]

SWAPPED_FILE: Final = "swapped.npz"
"""State and pixels of the set's image, for the fused build to compare with."""
_COMPARED: Final = 16
"""Matrices whose merged values are compared with the host's."""
_TURNS_MIB: Final = (2048, 1024)
_BASE_STEPS: Final = 4
_FEW_SWAPS: Final = 5
"""A case with fewer swaps of each kind is a trial."""


def main(case: Path, work: Path) -> None:
    """Measure swaps."""
    told = LoraCase.read(case)
    values: dict[str, Any] = {}

    def keep(**found: Any) -> None:
        values.update(found)
        write_part(work, "swap", values)

    with PeakWatch(CARD) as peak, opened(work, "swap") as (deployment, manifest, drawing):
        switch = drawing.diffuse.loras
        assert switch is not None
        merge = switch._merge
        one, two, three = served_loras(deployment)
        pair = (one, two)
        keep(
            runtime=manifest.runtime,
            precision=manifest.precision,
            rank=told.rank,
            merge=merge is not None,
        )
        base = drawing(_BASE_STEPS)["state"]
        started = time.perf_counter()
        switch.ensure(pair)
        keep(first_with_reading_the_files=time.perf_counter() - started)
        keep(to_two=_time_swaps(switch, drawing, (), pair, count=told.swaps))
        keep(one_to_other=_time_swaps(switch, drawing, (one,), (three,), count=told.swaps))
        keep(to_none=_time_swaps(switch, drawing, pair, (), count=told.swaps))
        keep(step=drawing.step(told.steps))
        keep(images=_check_images(drawing, work, pair, base, told))
        if merge is not None:
            host = _host_switch(switch, deployment, manifest)
            keep(merge_agreement=_merge_agreement(switch, merge, host, pair))
            keep(staging=staging_turns(switch, merge, pair))
            host = _host_switch(switch, deployment, manifest)
            keep(on_the_host=_time_swaps(host, drawing, (), pair, count=2))
            _distrust_engines(switch)
        switch.ensure(())
        keep(base_after_all=bool(np.array_equal(drawing(_BASE_STEPS)["state"], base)))
    keep(card_peak_mib=peak_mib(peak))


def _host_switch(switch: LoraSwitch, deployment: Deployment, manifest: BuildManifest) -> LoraSwitch:
    """Another switch of the same engines, one that computes on the host.

    The engines must hold the pristine weights while it is made.
    """
    switch.ensure(())
    store = LoraStore(deployment.build_folder / LORAS_FOLDER)
    threads = manifest.execution.threads or len(os.sched_getaffinity(0))
    host = LoraSwitch(switch._engines, switch._layers, store=store, threads=threads)
    host.warm_up()
    return host


def _distrust_engines(switch: LoraSwitch) -> None:
    """Have `switch` write every weight at its next swap: another switch wrote the engines meanwhile."""
    switch.resident = None
    touched = {component: set(file.tensors) for component, file in switch._layers.pristine.items()}
    switch._touched = touched


def _time_swaps(
    switch: LoraSwitch, drawing: Drawing, before: LoraSet, after: LoraSet, *, count: int
) -> dict[str, Any]:
    """Seconds of whole swaps, of the engines' share, and of the first step after one beyond a usual one."""
    whole, writing, first = [], [], []
    for _ in range(count):
        switch.ensure(before)
        whole.append(switch.ensure(after))
        writing.append(switch.counts.last_writing)
        # An image makes its own switch apply the set that is resident there.
        if switch is drawing.diffuse.loras:
            after_swap = drawing.denoise_seconds(1)
            first.append(after_swap - drawing.denoise_seconds(1))
        else:
            first.append(0.0)
    return {"seconds": spread(whole), "writing": spread(writing), "first_step_more": spread(first)}


def _check_images(drawing: Drawing, work: Path, pair: LoraSet, base: Array, case: LoraCase) -> dict[str, Any]:
    """Keep the image of `pair`; after random swaps, the base's image and that of `pair` must come again."""
    switch = drawing.diffuse.loras
    assert switch is not None
    switch.ensure(pair)
    made = drawing(case.steps, wanted=("state", "pixels"))
    np.savez(work / SWAPPED_FILE, **made)
    swaps = 50 if case.swaps >= _FEW_SWAPS else 5
    rng = np.random.default_rng(0)
    for _ in range(swaps):
        switch.ensure(_random_set(pair, rng))
    switch.ensure(())
    base_again = drawing(_BASE_STEPS)["state"]
    switch.ensure(pair)
    again = drawing(case.steps)["state"]
    return {
        "random_swaps": swaps,
        "none_equals_base": bool(np.array_equal(base_again, base)),
        "set_equals_itself": bool(np.array_equal(again, made["state"])),
    }


def _random_set(loras: LoraSet, rng: np.random.Generator) -> LoraSet:
    """Some of `loras`, at other weights."""
    some = [one for one in loras if rng.random() < 0.7]
    weights = [round(float(rng.uniform(0.1, 1.4)), 3) for _ in some]
    return tuple(one.model_copy(update={"weight": to}) for one, to in zip(some, weights, strict=True))


def _merge_agreement(switch: LoraSwitch, merge: LoraMerge, host: LoraSwitch, pair: LoraSet) -> dict[str, Any]:
    """Merged values of some matrices against the host's sum in float32, in units of the last place."""
    recipes = switch._prepared(pair).weights["unet"]
    summed = host._prepared(pair).weights["unet"]
    chosen = list(recipes)[:: max(len(recipes) // _COMPARED, 1)]
    staged = merge.stage({name: recipes[name] for name in chosen})
    gaps = [_units_apart(merge.backend.download(staged[name]), summed[name].values) for name in chosen]
    elements = sum(gap.size for gap in gaps)
    return {
        "matrices": len(chosen),
        "merged_of_all": sum(bool(recipe.terms) for recipe in recipes.values()),
        "of": len(recipes),
        "most_units": max(float(gap.max()) for gap in gaps),
        "share": sum(int(np.count_nonzero(gap)) for gap in gaps) / elements,
    }


def _units_apart(found: Array, expected: Array) -> Array:
    """Distances in units of the last place.

    A value that nearly cancels has the rounding of what it was summed from, so a unit is never smaller than
    that of the mean.
    """
    size = np.abs(expected)
    mean = size.astype(np.float32).mean().astype(size.dtype)
    unit = np.spacing(np.maximum(size, mean)).astype(np.float32)
    apart: Array = np.abs(found.astype(np.float32) - expected.astype(np.float32)) / unit
    return apart


def staging_turns(switch: LoraSwitch, merge: LoraMerge, pair: LoraSet) -> dict[str, Any]:
    """Seconds of the same swap in turns of less and less memory; a refusal where the engine refuses them."""
    usual = merge.staging_bytes
    found: dict[str, Any] = {}
    for mib in (usual >> 20, *_TURNS_MIB):
        try:
            found[f"{mib} MiB"] = _time_turns(switch, merge, pair, sizes=(usual, mib << 20))
        except IntaglioError as error:  # a refusal is a finding; the part goes on
            found[f"{mib} MiB"] = {"refused": str(error)}
        finally:
            merge.staging_bytes = usual
    return found


def _time_turns(
    switch: LoraSwitch, merge: LoraMerge, pair: LoraSet, *, sizes: Sequence[int]
) -> dict[str, Any]:
    """Swaps to `pair` with `sizes[1]` bytes of staging memory; back to none with the usual `sizes[0]`."""
    usual, less = sizes
    whole, writing = [], []
    for _ in range(2):
        merge.staging_bytes = usual
        switch.ensure(())
        merge.staging_bytes = less
        whole.append(switch.ensure(pair))
        writing.append(switch.counts.last_writing)
    return {"seconds": spread(whole), "writing": spread(writing)}


if __name__ == "__main__":
    typer.run(main)
