"""The bare refit of an engine, without LoRAs: `python -m benchmarks.loras.refit CASE.json WORK_FOLDER`.

Pristine values of few, some and all weights of the UNet are written from pageable, pinned and device memory,
which gives the fixed part of a refit and its part a byte. One refit is then taken apart into its calls.
"""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Final

import numpy as np
import typer

from benchmarks.loras.drawing import opened
from benchmarks.loras.files import LoraCase
from benchmarks.measuring.results import write_part
from benchmarks.measuring.timing import Stopwatch, spread
from intaglio.contract.sdxl import context_name
from intaglio.engines.interface import Array
from intaglio.engines.tensorrt.refit import located_weights
from intaglio.errors import IntaglioError
from intaglio.loras.targets import network_of_weight, open_layers

__all__ = ["with_joined"]

Weights = Mapping[str, Any]
"""Arrays of the host or of the device, by name."""
_FEW: Final = 10
_NETWORK: Final = "unet"
_WAYS: Final = (
    "made for it, validating",
    "made for it",
    "kept",
    "kept again",
    "kept, asynchronous",
    "kept, few of all",
)
"""How a refitter is used: made for one refit or kept for several, with validation or without."""


def main(case: Path, work: Path) -> None:
    """Measure refits."""
    count = max(LoraCase.read(case).swaps // 2, 2)
    values: dict[str, Any] = {"counts": {}}

    def keep(**found: Any) -> None:
        values.update(found)
        write_part(work, "refit", values)

    with opened(work, "swap") as (deployment, manifest, drawing):
        backend = drawing.diffuse._backend
        engine = drawing.diffuse._engines[_NETWORK]
        file = open_layers(manifest, deployment.build_folder).pristine[_NETWORK]
        dtype = "float16" if engine.precision == "fp16" else "float32"
        every: dict[str, Array] = {name: np.array(file.read(name), dtype) for name in file.tensors}
        own = [name for name in every if network_of_weight(_NETWORK, name) == _NETWORK]
        context = {name: array for name, array in every.items() if name not in set(own)}
        keep(context=_time_refits(drawing.diffuse._engines[context_name(_NETWORK)], context, count))
        started = time.perf_counter()
        joined = engine.joined({name: every[name].size for name in own})
        seconds = time.perf_counter() - started
        keep(joined={"seconds": seconds, "groups": sorted(map(len, joined), reverse=True)})
        pinned = {name: backend.hold(every[name]) for name in own}
        where: dict[str, Weights] = {}
        for number in sorted({1, min(_FEW, len(own)), len(own) // 2, len(own)}):
            names = with_joined(own[:number], joined)
            where = _in_each_memory(backend, names, pageable=every, pinned=pinned)
            found: dict[str, Any] = {"bytes": sum(every[name].nbytes for name in names)}
            for location, weights in where.items():
                found[location] = _time_refits(engine, weights, count)
            keep(counts=values["counts"] | {str(len(names)): found})
        if manifest.runtime != "onnxruntime":
            few = with_joined(own[:_FEW], joined)
            keep(taken_apart=_take_apart(engine, where["device"], few=few))


def with_joined(names: Sequence[str], joined: Sequence[frozenset[str]]) -> list[str]:
    """`names`, each with the weights that the compiler joined with it.

    An engine refuses to take some weights of such a group without the others.
    """
    group_of = {}
    for group in joined:
        group_of.update(dict.fromkeys(group, sorted(group)))
    found: dict[str, None] = {}
    for name in names:
        found.update(dict.fromkeys(group_of.get(name, [name])))
    return list(found)


def _in_each_memory(
    backend: Any, names: Sequence[str], *, pageable: Weights, pinned: Weights
) -> dict[str, Weights]:
    """The same weights in pageable, in pinned and in device memory."""
    arrays = [pageable[name] for name in names]
    device = backend.allocate_together([array.shape for array in arrays], arrays[0].dtype.name)
    for target, name in zip(device, names, strict=True):
        backend.upload(target, pinned[name])
    return {
        "pageable": {name: pageable[name] for name in names},
        "pinned": {name: pinned[name] for name in names},
        "device": dict(zip(names, device, strict=True)),
    }


def _time_refits(engine: Any, weights: Weights, count: int) -> dict[str, Any]:
    """Seconds of a refit of `weights`; a refusal where the engine wants others with them."""
    watch = Stopwatch()
    try:
        for _ in range(count):
            with watch.lap("refit"):
                engine.refit(weights)
    except IntaglioError as error:
        return {"refused": str(error)}
    return spread(watch.laps["refit"])


def _take_apart(engine: Any, weights: Weights, *, few: Sequence[str]) -> dict[str, Any]:
    """Seconds of each call of a refit, for every one of `_WAYS`."""
    found = {}
    refitter: Any = None
    for way in _WAYS:
        watch = Stopwatch()
        if not way.startswith("kept") or refitter is None:
            refitter = _make_refitter(engine, watch)
        refitter.weights_validation = way.endswith("validating")
        given = weights
        if way.endswith("few of all"):
            given = {name: weights[name] for name in few}
        _refit_in_calls(engine, refitter, given, watch, asynchronous=way.endswith("asynchronous"))
        found[way] = {call: round(seconds[0], 5) for call, seconds in watch.laps.items()}
    return found


def _make_refitter(engine: Any, watch: Stopwatch) -> Any:
    library = engine.library
    with watch.lap("make"):
        refitter = library.module.Refitter(engine.plan, library.logger)
    with watch.lap("list"):
        refitter.get_all_weights()
    return refitter


def _refit_in_calls(
    engine: Any, refitter: Any, weights: Weights, watch: Stopwatch, *, asynchronous: bool
) -> None:
    """One refit, every call of it a lap."""
    with watch.lap("set"):
        for name, values in weights.items():
            refitter.set_named_weights(name, *located_weights(engine.library, values))
    with watch.lap("missing"):
        refitter.get_missing_weights()
    if asynchronous:
        with watch.lap("refit returned"):
            refitter.refit_cuda_engine_async(int(engine.device.stream))
        with watch.lap("refit"):
            engine.device.synchronize()
    else:
        with watch.lap("refit"):
            refitter.refit_cuda_engine()
    with watch.lap("unset"):
        for name in weights:
            refitter.unset_named_weights(name)


if __name__ == "__main__":
    typer.run(main)
