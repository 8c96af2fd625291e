"""intaglio's engines in this process, without Triton: stages, whole images, and each engine by itself.

python -m benchmarks.speed.engines CASE.json WORK_FOLDER
"""

from __future__ import annotations

import functools
import io
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Final, cast

import numpy as np
import typer
from PIL import Image

from benchmarks.measuring.case import Case, Stopwatch, time_passes
from benchmarks.measuring.results import write_part
from intaglio.builds.manifest import BuildManifest
from intaglio.contract.sdxl import axis_sizes, context_name, controlnet_name, network_spec
from intaglio.engines.buffers import allocate_tensors
from intaglio.engines.card import PeakWatch
from intaglio.engines.interface import Array, Backend, Bound, Engine
from intaglio.engines.opening import open_backend
from intaglio.sampling.tiles import latent_tiling
from intaglio.serving.build_check import check_build
from intaglio.stages.diffuse.stage import Diffuse
from intaglio.stages.postprocess import postprocess
from intaglio.stages.preprocess.stage import Preprocess
from intaglio_client import Control, Parameters
from intaglio_client.parameters import tensors_from_parameters

OPTIONS: Final[Mapping[str, Mapping[str, float]]] = {
    "guidance off after half": {"guidance_end": 0.5},
    "guidance off before a tenth and after four fifths": {"guidance_begin": 0.1, "guidance_end": 0.8},
    "control off after half": {"control_end": 0.5},
    "control and guidance off after half": {"guidance_end": 0.5, "control_end": 0.5},
}
"""Options that change the image; each of these is measured on the case."""


def parameters_of(case: Case, image: int, *, control_end: float = 1.0, **options: float) -> Parameters:
    """What a client would ask for."""
    controls = (
        []
        if case.control is None
        else [Control(case.control, image=case.control_image(image), end=control_end)]
    )
    asked: dict[str, Any] = dict(
        negative_prompt=case.negative_prompt, seed=case.seed_of(image), width=case.width, height=case.height, steps=case.steps,
        guidance_scale=case.guidance_scale, scheduler="euler", controls=controls, **options,
    )  # fmt: skip
    return cast(Parameters, asked)


def run_image(
    case: Case, image: int, stages: tuple[Preprocess, Diffuse], watch: Stopwatch, **options: float
) -> bytes:
    """One image through all three stages; PNG bytes."""
    tensors = tensors_from_parameters(case.prompt_of(image), parameters_of(case, image, **options))
    preprocess, diffuse = stages
    with watch.lap("preprocess"):
        arrays: dict[str, Array] = dict(preprocess(tensors))
    extra = {name: arrays.pop(name) for name in ("output_format", "metadata")}
    with watch.lap("diffuse"):
        made = diffuse(arrays, wanted=("pixels", "timings"))
    with watch.lap("postprocess"):
        pixels = {"pixels": made["pixels"], "timings": made["timings"], **extra}
        encoded = postprocess(pixels, diffuse.manifest)
    return bytes(encoded["image"][0])


def measure_engines(
    manifest: BuildManifest, folder: Path, case: Case
) -> tuple[dict[str, dict[str, float]], dict[str, float]]:
    """Seconds of one pass of each engine by itself (of the decoder all tiles), and of the case's step, its
    engines in turn.

    Inputs are random: what the device needs, nothing else.
    """
    backend = open_backend(manifest)
    steps = [*([] if case.control is None else [controlnet_name(case.control)]), "unet"]
    names = ["text_encoder", "text_encoder_2", *steps, *map(context_name, steps), "vae_decoder"]
    found: dict[str, dict[str, float]] = {}
    engines: list[Engine] = []
    step: list[Bound] = []
    try:
        for name in names:
            spec, path = network_spec(name, manifest.architecture), folder / manifest.networks[name].path
            engine = backend.load(spec, path, precision=manifest.precision)
            engines.append(engine)
            (width, height), tiles = (
                _decoded(manifest, case) if name == "vae_decoder" else ((case.width, case.height), 1)
            )
            for guidance in (
                manifest.profiles.guidance_modes if name.startswith(("unet", "controlnet")) else (True,)
            ):
                sizes = axis_sizes(manifest.architecture, width=width, height=height, guidance=guidance)
                wanted = {axis: sizes[axis] for axis in engine.network.axis_names}
                arrays = allocate_tensors(backend, engine, wanted)
                _upload_noise(backend, arrays, [spec.name for spec in engine.network.inputs])
                bound = engine.bind(wanted, arrays)
                label = name if guidance else f"{name} without guidance"
                found[label] = time_passes(functools.partial(_run_all, [bound] * tiles), backend.synchronize)
                if name in steps and guidance == (case.guidance_scale > 1):
                    step.append(bound)
        return found, time_passes(functools.partial(_run_all, step), backend.synchronize)
    finally:
        for engine in engines:
            engine.close()
        backend.close()


def _run_all(passes: Sequence[Bound]) -> None:
    for bound in passes:
        bound.run()


def _decoded(manifest: BuildManifest, case: Case) -> tuple[tuple[int, int], int]:
    """(width, height) pixels that the VAE decodes at once, and how often for an image of the case."""
    scale = manifest.architecture.vae_scale
    tiling = latent_tiling(
        manifest.profiles, manifest.architecture, width=case.width // scale, height=case.height // scale
    ).scaled(scale)
    return (tiling.width, tiling.height), len(tiling.lefts) * len(tiling.tops)


def _upload_noise(backend: Backend, arrays: Mapping[str, Any], inputs: list[str]) -> None:
    generator = np.random.default_rng(0)
    for name in inputs:
        array = arrays[name]
        whole = {"i": 40000, "u": 256}.get(array.dtype.kind)
        values = (
            0.3 * generator.standard_normal(array.shape)
            if whole is None
            else generator.integers(0, whole, array.shape)
        )
        backend.upload(array, values.astype(array.dtype))


def main(case: Path, work: Path) -> None:
    """Measure the engines in process."""
    told, watch, name = Case.read(case), Stopwatch(), "engines"
    told.draw_controls(told.images)
    manifest = check_build(told.deployment)
    folder = told.deployment.build_folder
    (work / name).mkdir(parents=True, exist_ok=True)
    values: dict[str, Any] = {"dtype": manifest.precision, "runtime": manifest.runtime}
    with PeakWatch() as peak:
        with watch.lap("open"):
            stages = (Preprocess(manifest, folder).__enter__(), Diffuse(manifest, folder).__enter__())
            stages[1].warm_up()
        try:
            for image in range(-1, told.images):
                with watch.lap("first_image" if image < 0 else "end_to_end"):
                    data = run_image(told, image, stages, watch)
                if image >= 0:
                    np.save(work / name / f"{image}.npy", np.asarray(Image.open(io.BytesIO(data))))
            values |= {"seconds": watch.spreads(), "options": {}}
            for option, settings in OPTIONS.items():
                run_image(told, 0, stages, Stopwatch(), **settings)
                own = Stopwatch()
                for image in range(2):
                    with own.lap(option):
                        run_image(told, image, stages, Stopwatch(), **settings)
                values["options"] |= own.spreads()
                write_part(work, name, values)
        finally:
            stages[1].__exit__(None, None, None)
    values["card_peak_mib"] = None if peak.taken is None else peak.taken >> 20
    values["stages"], values["step"] = measure_engines(manifest, folder, told)
    write_part(work, name, values)


if __name__ == "__main__":
    typer.run(main)
