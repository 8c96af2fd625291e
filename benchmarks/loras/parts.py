"""The LoRA benchmark's parts that need no server: `python -m benchmarks.loras.parts CASE.json WORK_FOLDER
PART`.

build     LoRA files and the build that swaps them
swap      seconds to put a set on, by the merge and by the host; that weights and images are those they should be; a step
refit     the bare refit: its fixed part and its part a byte, from pageable, pinned and device memory; where the fixed part goes
fused     the build with the set fused; a step; its image beside the swapped one's
rebuild   the same after one LoRA file changed, to the first image
"""

from __future__ import annotations

import json
import os
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import partial
from itertools import pairwise
from pathlib import Path
from typing import Any, Final

import numpy as np
import typer
from safetensors.numpy import load_file, save_file

from benchmarks.loras.files import LORAS, RETRAINED, LoraCase, config_of, prepare, use_in_fused
from benchmarks.measuring.case import psnr, spread
from benchmarks.measuring.results import read_part, write_part
from benchmarks.speed.building import HostWatch, Journal
from intaglio.builds.manifest import BuildManifest, read_manifest
from intaglio.contract.config import Deployment, load_deployment
from intaglio.contract.lora_registry import ResolvedLora
from intaglio.contract.models import SDXL
from intaglio.contract.ports import numpy_type, string_tensor
from intaglio.contract.sdxl import context_name
from intaglio.engines.card import PeakWatch
from intaglio.engines.interface import Array
from intaglio.engines.tensorrt.refit import located_weights
from intaglio.errors import IntaglioError
from intaglio.loras.merge import LoraMerge
from intaglio.loras.store import LORAS_FOLDER, LoraStore
from intaglio.loras.switch import LoraSwitch
from intaglio.loras.targets import network_of_weight, open_layers
from intaglio.stages.diffuse.stage import Diffuse
from intaglio.stages.preprocess.stage import Preprocess
from intaglio_export.build import BuildOptions, build_deployment

PROMPT: Final = "a person dancing on a beach"
_COMPARED: Final = 16
"""Matrices whose merged values are compared with the host's."""
Set = tuple[ResolvedLora, ...]


@contextmanager
def opened(work: Path, name: str) -> Iterator[tuple[Deployment, BuildManifest, Drawing]]:
    """A build's stage in this process, warm."""
    deployment = load_deployment(config_of(work, name))
    manifest = read_manifest(deployment.build_folder)
    folder = deployment.build_folder
    with Diffuse(manifest, folder) as diffuse, Preprocess(manifest, folder) as preprocess:
        diffuse.warm_up()
        yield deployment, manifest, Drawing(diffuse, preprocess)


def served_sets(deployment: Deployment) -> tuple[ResolvedLora, ...]:
    """Every LoRA that the build serves, at weight 1."""
    served = LoraStore(deployment.build_folder / LORAS_FOLDER).current().loras
    return tuple(ResolvedLora(id=name, sha256=served[name].sha256, weight=1.0) for name in LORAS)


class Drawing:
    """Images of one seed and prompt, for one build."""

    def __init__(self, diffuse: Diffuse, preprocess: Preprocess) -> None:
        self.diffuse = diffuse
        self._preprocess = preprocess

    def __call__(
        self, steps: int, *, wanted: Sequence[str] = ("state", "timings"), loras: Set | None = None
    ) -> dict[str, Array]:
        """`loras` None: whatever is resident."""
        values: dict[str, Any] = {"prompt": PROMPT, "seed": 0, "steps": steps}
        tensors = {}
        for name, value in values.items():
            tensors[name] = np.empty(1, numpy_type(SDXL.input(name).datatype))
            tensors[name][:] = value.encode() if isinstance(value, str) else value
        arrays = {
            k: v
            for k, v in self._preprocess(tensors).items()
            if k not in ("metadata", "output_format", "loras")
        }
        if loras is None:
            loras = () if self.diffuse.loras is None else self.diffuse.loras.resident
        arrays["loras"] = string_tensor(json.dumps([one.model_dump() for one in loras or ()]))
        return dict(self.diffuse(arrays, wanted=wanted))

    def denoise_seconds(self, steps: int) -> float:
        """Of the steps alone."""
        return float(json.loads(self(steps)["timings"][0])["denoise"])

    def step(self, steps: int) -> dict[str, float]:
        """Seconds of one step, from runs of two lengths: what is done once cancels out."""
        return spread([(self.denoise_seconds(1 + steps) - self.denoise_seconds(1)) / steps for _ in range(5)])


def build(case: LoraCase, work: Path) -> None:
    """Files and the build that swaps them."""
    prepare(case, work)
    _build(work, "swap", "build")


def _build(work: Path, name: str, part: str) -> None:
    with PeakWatch() as watch, HostWatch() as host:
        journal = Journal(work, watch, host, part=part)
        build_deployment(config_of(work, name), BuildOptions(), reporter=journal)
        journal.keep(complete=True)


def swap(case: LoraCase, work: Path) -> None:
    """Put sets on, and look at what came of it."""
    values: dict[str, Any] = {}

    def keep(**found: Any) -> None:
        values.update(found)
        write_part(work, "swap", values)

    with PeakWatch() as peak, opened(work, "swap") as (deployment, manifest, drawing):
        diffuse, switch = drawing.diffuse, drawing.diffuse.loras
        assert switch is not None
        one, two, three = served_sets(deployment)
        keep(
            runtime=manifest.runtime,
            precision=manifest.precision,
            rank=case.rank,
            merge=switch._merge is not None,
        )
        base = drawing(4)["state"]
        started = time.perf_counter()
        switch.ensure((one, two))
        keep(first_with_reading_the_files=time.perf_counter() - started)
        kinds: dict[str, tuple[Set, Set]] = {
            "to_two": ((), (one, two)),
            "one_to_other": ((one,), (three,)),
            "to_none": ((one, two), ()),
        }
        for name, (before, after) in kinds.items():
            keep(**{name: _time_swaps(switch, drawing, before, after, count=case.swaps)})
        keep(step=drawing.step(case.steps), images=_set_images(switch, drawing, work, (one, two), base, case))
        if switch._merge is not None:
            keep(merge_agreement=_agreement(switch, diffuse, deployment, manifest, (one, two)))
            keep(staging=_staging(switch, switch._merge, (one, two)))
            host = _host_switch(diffuse, deployment, manifest)
            keep(on_the_host=_time_swaps(host, drawing, (), (one, two), count=2))
            switch.resident = None  # the other switch wrote the engines
            switch._touched = {
                component: set(file.tensors) for component, file in switch._layers.pristine.items()
            }
        switch.ensure(())
        keep(base_after_all=bool(np.array_equal(drawing(4)["state"], base)))
    keep(card_peak_mib=None if peak.taken is None else peak.taken >> 20)


def _host_switch(diffuse: Diffuse, deployment: Deployment, manifest: BuildManifest) -> LoraSwitch:
    """Another switch of the same engines that computes on the host; they must hold the pristine weights."""
    assert diffuse.loras is not None
    diffuse.loras.ensure(())
    store, threads = (
        LoraStore(deployment.build_folder / LORAS_FOLDER),
        manifest.execution.threads or len(os.sched_getaffinity(0)),
    )
    host = LoraSwitch(diffuse.loras._engines, diffuse.loras._layers, store=store, threads=threads)
    host.warm_up()
    return host


def _time_swaps(
    switch: LoraSwitch, drawing: Drawing, before: Set, after: Set, *, count: int
) -> dict[str, Any]:
    """Whole swaps, the engines' share, and what the first step after one takes (over a usual first step)."""
    whole, writing, first = [], [], []
    for _ in range(count):
        switch.ensure(before)
        whole.append(switch.ensure(after))
        writing.append(switch.counts.last_writing)
        drawing_after = drawing.denoise_seconds(1) if switch is drawing.diffuse.loras else 0.0
        usual = drawing.denoise_seconds(1) if switch is drawing.diffuse.loras else 0.0
        first.append(drawing_after - usual)
    return {"seconds": spread(whole), "writing": spread(writing), "first_step_more": spread(first)}


def _set_images(
    switch: LoraSwitch, drawing: Drawing, work: Path, pair: Set, base: Array, case: LoraCase
) -> dict[str, Any]:
    """The set's image, kept for the fused build to compare; none after fifty random swaps."""
    switch.ensure(pair)
    made = drawing(case.steps, wanted=("state", "pixels"))
    np.savez(work / "swapped.npz", **made)
    rng = np.random.default_rng(0)
    for number in range(50 if case.swaps >= 5 else 5):
        some = tuple(one for one in pair if rng.random() < 0.7)
        switch.ensure(
            tuple(one.model_copy(update={"weight": round(float(rng.uniform(0.1, 1.4)), 3)}) for one in some)
        )
        done = number + 1
    switch.ensure(())
    equal = bool(np.array_equal(drawing(4)["state"], base))
    switch.ensure(pair)
    again = drawing(case.steps)["state"]
    return {
        "random_swaps": done,
        "none_equals_base": equal,
        "set_equals_itself": bool(np.array_equal(again, made["state"])),
    }


def _agreement(
    switch: LoraSwitch, diffuse: Diffuse, deployment: Deployment, manifest: BuildManifest, pair: Set
) -> dict[str, Any]:
    """Merged values of some matrices against the host's sum in float32, in units of the last place."""
    assert switch._merge is not None
    recipes = switch._prepared(pair).weights["unet"]
    chosen = list(recipes)[:: max(len(recipes) // _COMPARED, 1)]
    host = _host_switch(diffuse, deployment, manifest)._prepared(pair).weights["unet"]
    staged = switch._merge.stage({name: recipes[name] for name in chosen})
    units, different, elements, merged = 0.0, 0, 0, sum(bool(recipe.terms) for recipe in recipes.values())
    for name in chosen:
        found, expected = switch._merge.backend.download(staged[name]), host[name].values
        # A value that nearly cancels has the rounding of what it was summed from.
        size = np.abs(expected)
        unit = np.spacing(np.maximum(size, size.astype(np.float32).mean().astype(size.dtype))).astype(
            np.float32
        )
        gap = np.abs(found.astype(np.float32) - expected.astype(np.float32)) / unit
        units, different, elements = (
            max(units, float(gap.max())),
            different + int(np.count_nonzero(gap)),
            elements + gap.size,
        )
    return {
        "matrices": len(chosen),
        "merged_of_all": merged,
        "of": len(recipes),
        "most_units": units,
        "share": different / elements,
    }


def _staging(switch: LoraSwitch, merge: LoraMerge, pair: Set) -> dict[str, Any]:
    """The same swap in turns of less memory, and what of it is computing and uploading."""
    found: dict[str, Any] = {}
    usual = merge.staging_bytes
    for mib in (usual >> 20, 2048, 1024):
        whole, writing = [], []
        try:
            for _ in range(2):
                merge.staging_bytes = usual
                switch.ensure(())
                merge.staging_bytes = mib << 20
                whole.append(switch.ensure(pair))
                writing.append(switch.counts.last_writing)
        except IntaglioError as error:  # an alternative that is refused is a finding; the part goes on
            found[f"{mib} MiB"] = {"refused": str(error)}
        else:
            found[f"{mib} MiB"] = {"seconds": spread(whole), "writing": spread(writing)}
        finally:
            merge.staging_bytes = usual
    return found


def refit(case: LoraCase, work: Path) -> None:
    """The bare refit of pristine values into the UNet, and of all of them into its context."""
    values: dict[str, Any] = {"counts": {}}
    with opened(work, "swap") as (deployment, manifest, drawing):
        engine, backend = drawing.diffuse._engines["unet"], drawing.diffuse._backend
        file = open_layers(manifest, deployment.build_folder).pristine["unet"]
        dtype = "float16" if engine.precision == "fp16" else "float32"
        every = {name: np.array(file.read(name), dtype) for name in file.tensors}
        context = {
            name: values for name, values in every.items() if network_of_weight("unet", name) != "unet"
        }
        pageable = {name: values for name, values in every.items() if name not in context}
        of_context = drawing.diffuse._engines[context_name("unet")]
        values["context"] = spread(
            [_timed(partial(of_context.refit, context)) for _ in range(max(case.swaps // 2, 2))]
        )
        names, count = list(pageable), max(case.swaps // 2, 2)
        started = time.perf_counter()
        joined = engine.joined({name: array.size for name, array in pageable.items()})
        values["joined"] = {
            "seconds": time.perf_counter() - started,
            "groups": sorted(map(len, joined), reverse=True),
        }
        held = {name: backend.hold(array) for name, array in pageable.items()}
        for number in sorted({1, min(10, len(names)), len(names) // 2, len(names)}):
            some = _whole(names[:number], joined)
            device = backend.allocate_together([pageable[name].shape for name in some], dtype)
            for target, name in zip(device, some, strict=True):
                backend.upload(target, held[name])
            where: dict[str, Mapping[str, Any]] = {
                "pageable": {name: pageable[name] for name in some},
                "pinned": {name: held[name] for name in some},
                "device": dict(zip(some, device, strict=True)),
            }
            found: dict[str, Any] = {"bytes": sum(pageable[name].nbytes for name in some)}
            for location, given in where.items():
                try:
                    found[location] = spread([_timed(partial(engine.refit, given)) for _ in range(count)])
                except (
                    IntaglioError
                ) as error:  # an engine may ask for weights that it has put together with these
                    found[location] = {"refused": str(error)}
            values["counts"][str(len(some))] = found
            write_part(work, "refit", values)
            if number == len(names) and manifest.runtime != "onnxruntime":
                values["taken_apart"] = _take_apart(engine, where["device"], few=_whole(names[:10], joined))
                write_part(work, "refit", values)


def _timed(work: Callable[[], object]) -> float:
    started = time.perf_counter()
    work()
    return time.perf_counter() - started


def _whole(names: Sequence[str], joined: Sequence[frozenset[str]]) -> list[str]:
    """`names`, and what is joined with them."""
    group_of = {name: sorted(group) for group in joined for name in group}
    return list(dict.fromkeys(one for name in names for one in group_of.get(name, [name])))


def _take_apart(engine: Any, given: Mapping[str, Any], *, few: Sequence[str]) -> dict[str, Any]:
    """Seconds of each call of a refit, for a refitter made for it and for one that is kept; with and without
    validation; asynchronous.
    """
    library, device = engine.library, engine.device
    found: dict[str, Any] = {}
    kept: Any = None
    for name in (
        "made for it, validating",
        "made for it",
        "kept",
        "kept again",
        "kept, asynchronous",
        "kept, few of all",
    ):
        marks = [("", time.perf_counter())]

        def mark(label: str, marks: list[tuple[str, float]] = marks) -> None:
            marks.append((label, time.perf_counter()))

        if not name.startswith("kept") or kept is None:
            kept = library.module.Refitter(engine.plan, library.logger)
            mark("make")
            kept.get_all_weights()
            mark("list")
        kept.weights_validation = name.endswith("validating")
        some = {weight: given[weight] for weight in few} if name.endswith("few of all") else given
        for weight, values in some.items():
            kept.set_named_weights(weight, *located_weights(library, values))
        mark("set")
        kept.get_missing_weights()
        mark("missing")
        if name.endswith("asynchronous"):
            kept.refit_cuda_engine_async(int(device.stream))
            mark("refit returned")
            device.synchronize()
        else:
            kept.refit_cuda_engine()
        mark("refit")
        for weight in some:
            kept.unset_named_weights(weight)
        mark("unset")
        found[name] = {label: round(end - begin, 5) for (_, begin), (label, end) in pairwise(marks)}
    return found


def fused(case: LoraCase, work: Path) -> None:
    """The build with the set fused: its step, and its image beside the swapped one's."""
    earlier = read_part(work, "fused") or {}
    if "complete" not in earlier or not earlier["complete"]:
        use_in_fused(work, LORAS[0])
        _build(work, "fused", "fused")
    values = {
        name: value
        for name, value in (read_part(work, "fused") or {}).items()
        if name not in ("failed", "wall_seconds")
    }
    with opened(work, "fused") as (_, manifest, drawing):
        values |= {"loras": [lora.id for lora in manifest.loras], "step": drawing.step(case.steps)}
        write_part(work, "fused", values)
        if manifest.loras and (work / "swapped.npz").is_file():
            swapped, ours = np.load(work / "swapped.npz"), drawing(case.steps, wanted=("state", "pixels"))
            difference = np.linalg.norm(swapped["state"] - ours["state"]) / np.linalg.norm(ours["state"])
            values |= {
                "swapped_psnr": psnr(swapped["pixels"], ours["pixels"]),
                "swapped_relative_error": float(difference),
            }
    write_part(work, "fused", values)


def rebuild(case: LoraCase, work: Path) -> None:
    """From a LoRA file that changed to the first image of the build that fuses it; in process, engines opened
    anew.
    """
    if not load_deployment(config_of(work, "fused")).fuse:
        write_part(work, "rebuild", {"not_measured": "no peft here: nothing can be fused"})
        return
    use_in_fused(work, RETRAINED)
    started = time.perf_counter()
    _make_new(load_deployment(config_of(work, "fused")).loras[LORAS[0]].path)
    _build(work, "fused", "rebuild")
    built = time.perf_counter() - started
    with opened(work, "fused") as (_, manifest, drawing):
        drawing(manifest.defaults.steps, wanted=("pixels",))
    values = read_part(work, "rebuild") or {}
    values |= {"built_seconds": built, "file_to_first_image_seconds": time.perf_counter() - started}
    write_part(work, "rebuild", values)


def _make_new(path: Path) -> None:
    """Change a value of the LoRA, so that no attempt before has built it."""
    tensors = load_file(path)
    name = next(iter(tensors))
    tensors[name] = tensors[name].copy()
    tensors[name][0, 0] = np.float16((time.time() % 1000) / 1e5)
    save_file(tensors, path)


PARTS: Final[Mapping[str, Callable[[LoraCase, Path], None]]] = {
    "build": build, "swap": swap, "refit": refit, "fused": fused, "rebuild": rebuild,
}  # fmt: skip


def main(case: Path, work: Path, part: str) -> None:
    """Measure one part."""
    PARTS[part](LoraCase.read(case), work)


if __name__ == "__main__":
    typer.run(main)
