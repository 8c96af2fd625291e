"""intaglio's engines in this process, without Triton: stages, whole images, and each engine by itself.

python -m benchmarks.speed.engines CASE.json WORK_FOLDER
"""

from __future__ import annotations

import functools
import io
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import Any, Final

import numpy as np
import typer
from PIL import Image

from benchmarks.measuring.case import Case
from benchmarks.measuring.results import write_part
from benchmarks.measuring.timing import Stopwatch, time_passes
from benchmarks.measuring.watches import CARD, peak_mib
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
from intaglio_client.parameters import tensors_from_parameters

__all__ = ["OPTIONS", "Stages", "run_all", "run_image", "upload_noise"]

Stages = tuple[Preprocess, Diffuse]
Times = dict[str, float]
OPTIONS: Final[Mapping[str, Mapping[str, float]]] = {
    "guidance off after half": {"guidance_end": 0.5},
    "guidance off before a tenth and after four fifths": {"guidance_begin": 0.1, "guidance_end": 0.8},
    "control off after half": {"control_end": 0.5},
    "control and guidance off after half": {"guidance_end": 0.5, "control_end": 0.5},
}
"""Options that change the image; each of these is measured on the case."""
_OPTION_IMAGES: Final = 2
_ABOVE: Final = {"i": 40000, "u": 256}
"""Random token ids and pixels are below these."""


def run_image(case: Case, image: int, stages: Stages, watch: Stopwatch, **options: float) -> bytes:
    """One image through all three stages; PNG bytes."""
    tensors = tensors_from_parameters(case.prompt_of(image), case.parameters_of(image, **options))
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


def measure_images(case: Case, stages: Stages, watch: Stopwatch, folder: Path) -> None:
    """Time the case's images and keep them in `folder`; the first one is not measured."""
    for image in range(-1, case.images):
        with watch.lap("first_image" if image < 0 else "end_to_end"):
            data = run_image(case, image, stages, watch)
        if image >= 0:
            np.save(folder / f"{image}.npy", np.asarray(Image.open(io.BytesIO(data))))


def measure_option(case: Case, stages: Stages, settings: Mapping[str, float]) -> Stopwatch:
    """Time some images with one option, as laps `image`."""
    run_image(case, 0, stages, Stopwatch(), **settings)  # what is set up for a new kind of pass is not timed
    watch = Stopwatch()
    for image in range(_OPTION_IMAGES):
        with watch.lap("image"):
            run_image(case, image, stages, Stopwatch(), **settings)
    return watch


class Bench:
    """Engines of a build on random inputs, each by itself and those of a step in turn."""

    def __init__(self, manifest: BuildManifest, folder: Path, case: Case) -> None:
        self._manifest = manifest
        self._folder = folder
        self._case = case
        self._steps = ["unet"]
        if case.control is not None:
            self._steps.insert(0, controlnet_name(case.control))
        self._step: list[Bound] = []
        """Passes of the case's step, of the engines that were measured so far."""

    def measure(self) -> tuple[dict[str, Times], Times]:
        """Seconds of one pass of each engine (of the decoder all tiles), and of the case's step."""
        contexts = [context_name(name) for name in self._steps]
        names = ["text_encoder", "text_encoder_2", *self._steps, *contexts, "vae_decoder"]
        found: dict[str, Times] = {}
        with ExitStack() as stack:
            backend = open_backend(self._manifest)
            stack.callback(backend.close)
            for name in names:
                spec = network_spec(name, self._manifest.architecture)
                path = self._folder / self._manifest.networks[name].path
                engine = backend.load(spec, path, precision=self._manifest.precision)
                stack.callback(engine.close)
                found |= self._measure_engine(backend, engine, name)
            return found, time_passes(functools.partial(run_all, self._step), backend.synchronize)

    def _measure_engine(self, backend: Backend, engine: Engine, name: str) -> dict[str, Times]:
        """Seconds of a pass with guidance, and without it where that is another pass."""
        width, height, tiles = self._case.width, self._case.height, 1
        if name == "vae_decoder":
            width, height, tiles = self._decoded()
        modes: Sequence[bool] = (True,)
        if name.startswith(("unet", "controlnet")):
            modes = self._manifest.profiles.guidance_modes
        found = {}
        for guidance in modes:
            sizes = axis_sizes(self._manifest.architecture, width=width, height=height, guidance=guidance)
            wanted = {axis: sizes[axis] for axis in engine.network.axis_names}
            arrays = allocate_tensors(backend, engine, wanted)
            upload_noise(backend, arrays, [spec.name for spec in engine.network.inputs])
            bound = engine.bind(wanted, arrays)
            label = name if guidance else f"{name} without guidance"
            found[label] = time_passes(functools.partial(run_all, [bound] * tiles), backend.synchronize)
            if name in self._steps and guidance == (self._case.guidance_scale > 1):
                self._step.append(bound)
        return found

    def _decoded(self) -> tuple[int, int, int]:
        """Width and height in pixels of what the VAE decodes in one pass, and its passes an image."""
        architecture = self._manifest.architecture
        scale = architecture.vae_scale
        tiling = latent_tiling(
            self._manifest.profiles,
            architecture,
            width=self._case.width // scale,
            height=self._case.height // scale,
        ).scaled(scale)
        return tiling.width, tiling.height, len(tiling.lefts) * len(tiling.tops)


def run_all(passes: Sequence[Bound]) -> None:
    """Enqueue passes one after another."""
    for bound in passes:
        bound.run()


def upload_noise(backend: Backend, arrays: Mapping[str, Any], inputs: Sequence[str]) -> None:
    """Random values: what an engine takes does not depend on them."""
    generator = np.random.default_rng(0)
    for name in inputs:
        array = arrays[name]
        if name == "state_rows":
            values = np.arange(*array.shape)  # no layer is skipped; a larger one would lie outside
        elif array.dtype.kind in _ABOVE:
            values = generator.integers(0, _ABOVE[array.dtype.kind], array.shape)
        else:
            values = 0.3 * generator.standard_normal(array.shape)
        backend.upload(array, values.astype(array.dtype))


def main(case: Path, work: Path) -> None:
    """Measure the engines in process."""
    told = Case.read(case)
    told.draw_controls(told.images)
    watch = Stopwatch()
    manifest = check_build(told.deployment)
    folder = told.deployment.build_folder
    (work / "engines").mkdir(parents=True, exist_ok=True)
    values: dict[str, Any] = {"dtype": manifest.precision, "runtime": manifest.runtime, "options": {}}
    with PeakWatch(CARD) as peak, ExitStack() as stack:
        with watch.lap("open"):
            preprocess = stack.enter_context(Preprocess(manifest, folder))
            diffuse = stack.enter_context(Diffuse(manifest, folder))
            diffuse.warm_up()
        stages = (preprocess, diffuse)
        measure_images(told, stages, watch, work / "engines")
        values["seconds"] = watch.spreads()
        for option, settings in OPTIONS.items():
            values["options"][option] = measure_option(told, stages, settings).spreads()["image"]
            write_part(work, "engines", values)
    values["card_peak_mib"] = peak_mib(peak)
    values["stages"], values["step"] = Bench(manifest, folder, told).measure()
    write_part(work, "engines", values)


if __name__ == "__main__":
    typer.run(main)
