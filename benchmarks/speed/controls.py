"""Five ControlNets over gRPC in the memory of fewer: what each one adds to a picture, and what a swap takes.

    python -m benchmarks.speed.controls CASE.json WORK_FOLDER
The five are copies of the case's ControlNet (`shared_controlnets`), so all draw the same picture of the same
map. What the part `build` has built is not built again.
"""

from __future__ import annotations

import functools
from contextlib import ExitStack
from dataclasses import replace
from pathlib import Path
from typing import Any, Final

import numpy as np
import typer

from benchmarks.measuring.case import Case
from benchmarks.measuring.parts import end_orderly_on_terminate
from benchmarks.measuring.results import write_part
from benchmarks.measuring.timing import Stopwatch, time_passes
from benchmarks.measuring.watches import CARD, HostWatch, free_before_mib, peak_mib
from benchmarks.speed.building import Journal
from benchmarks.speed.engines import run_all, upload_noise
from benchmarks.speed.opening import measure_opening
from benchmarks.speed.served import open_server
from benchmarks.speed.shared_controlnets import build_shared, write_shared_config
from intaglio.builds.manifest import BuildManifest
from intaglio.contract.sdxl import axis_sizes, context_name, controlnet_name, network_spec
from intaglio.engines.buffers import allocate_tensors
from intaglio.engines.card import PeakWatch
from intaglio.engines.interface import Backend, Bound
from intaglio.engines.opening import open_backend
from intaglio.serving.build_check import check_build
from intaglio.serving.memory import predict_memory
from intaglio_client import Client, Control
from intaglio_client.image import Image

__all__ = ["Controls", "measure_steps"]

PART: Final = "controls"
_DEADLINE: Final = 300
_SWAPS: Final = 10
_MOST_TOGETHER: Final = 3
"""Most ControlNets of a picture that is timed."""
SWAP: Final = "controlnet_swap"


class Controls:
    """Pictures of the case with any of its ControlNets."""

    def __init__(self, client: Client, case: Case, controls: list[str]) -> None:
        self._client = client
        self._case = case
        self.controls = controls

    def draw(self, image: int, *controls: str) -> Image:
        """Picture `image` of the case with `controls`, each with a map of its own."""
        asked = [
            Control(control, image=self._case.control_image(image + place))
            for place, control in enumerate(controls)
        ]
        parameters = self._case.parameters_of(image) | {"controls": asked}
        return self._client.generate(self._case.prompt_of(image), **parameters)

    def measure_counts(self, watch: Stopwatch, most: int) -> None:
        """Seconds of pictures with 0 to `most` ControlNets, which are open before they are timed."""
        for count in range(most + 1):
            self.draw(-1, *self.controls[:count])
        for image in range(self._case.images):
            for count in range(most + 1):
                with watch.lap(f"{count} ControlNets"):
                    made = self.draw(image, *self.controls[:count])
                if SWAP in made.timings:
                    raise ValueError(f"{count} ControlNets were not open together")
                watch.laps.setdefault(f"denoise, {count} ControlNets", []).append(made.timings["denoise"])

    def measure_swaps(self, watch: Stopwatch) -> int:
        """Seconds of pictures with one ControlNet that was not open; how many are unlike the others.

        More ControlNets take turns than are open, so each of them has been closed when its turn comes again.
        """
        for control in self.controls:
            self.draw(0, control)
        expected = self.draw(0, self.controls[-1]).pixels
        different = 0
        for number in range(_SWAPS):
            control = self.controls[number % len(self.controls)]
            with watch.lap("with a swap"):
                made = self.draw(0, control)
            if SWAP not in made.timings:
                raise ValueError(f"{control} was open already")
            watch.laps.setdefault(SWAP, []).append(made.timings[SWAP])
            watch.laps.setdefault("denoise, after a swap", []).append(made.timings["denoise"])
            different += not np.array_equal(made.pixels, expected)
            with watch.lap("without a swap"):
                made = self.draw(0, control)
            watch.laps.setdefault("denoise, without a swap", []).append(made.timings["denoise"])
            different += not np.array_equal(made.pixels, expected)
        return different


def measure_steps(
    manifest: BuildManifest, folder: Path, case: Case, controls: list[str]
) -> dict[str, dict[str, float]]:
    """Seconds of a step's engines in turn, with none of `controls`, the first, the first two, ...

    Also those of one ControlNet alone, and of what it computes once an image.
    """
    names = [controlnet_name(control) for control in controls]
    guidance = case.guidance_scale > 1
    sizes = axis_sizes(manifest.architecture, width=case.width, height=case.height, guidance=guidance)
    found = {}
    with ExitStack() as stack:
        backend = open_backend(manifest)
        stack.callback(backend.close)

        def bound(name: str) -> Bound:
            return _bound(backend, manifest, folder / manifest.networks[name].path, name, sizes, stack)

        def seconds(passes: list[Bound]) -> dict[str, float]:
            return time_passes(functools.partial(run_all, passes), backend.synchronize)

        step = [bound("unet")]
        found["0 ControlNets"] = seconds(step)
        for count, name in enumerate(names, 1):
            step.insert(0, bound(name))
            found[f"{count} ControlNets"] = seconds(step)
        found["ControlNet alone"] = seconds(step[:1])
        found["ControlNet, once an image"] = seconds([bound(context_name(names[0]))])
    return found


def _bound(
    backend: Backend,
    manifest: BuildManifest,
    path: Path,
    name: str,
    sizes: dict[str, int],
    stack: ExitStack,
) -> Bound:
    spec = network_spec(name, manifest.architecture)
    engine = backend.load(spec, path, precision=manifest.precision)
    stack.callback(engine.close)
    wanted = {axis: sizes[axis] for axis in spec.axis_names}
    arrays = allocate_tensors(backend, engine, wanted)
    upload_noise(backend, arrays, [tensor.name for tensor in spec.inputs])
    return engine.bind(wanted, arrays)


def main(case: Path, work: Path) -> None:
    """Measure ControlNets that share the memory of fewer."""
    told = Case.read(case)
    if told.control is None:
        raise ValueError(f"{told.config}: the case has no ControlNet")
    config = write_shared_config(told, work / "configs")
    with PeakWatch(CARD) as card, HostWatch() as host:
        journal = Journal(work, f"{PART}_build", card=card, host=host)
        deployment = build_shared(config, told, reporter=journal)
        journal.keep(complete=True)
    told = replace(told, config=str(config))
    told.draw_controls(told.images + _MOST_TOGETHER)
    manifest = check_build(deployment)
    controls, resident = list(deployment.controlnets), manifest.resident_controlnets
    most = min(resident, _MOST_TOGETHER, manifest.limits.controls)
    watch = Stopwatch()
    values: dict[str, Any] = {
        "controlnets": len(controls),
        "resident": resident,
        "predicted_mib": predict_memory(deployment, manifest).bytes >> 20,
    }

    def keep(**more: Any) -> None:
        values.update(more)
        write_part(work, PART, values)

    with PeakWatch(CARD) as peak:
        keep(card_free_before_mib=free_before_mib(peak))
        with ExitStack() as stack:
            with watch.lap("start to first image"):
                server = stack.enter_context(open_server(told))
                client = stack.enter_context(Client(server.grpc_url, deadline=_DEADLINE))
                drawn = Controls(client, told, controls)
                drawn.draw(-1, controls[0])
            drawn.measure_counts(watch, most)
            keep(seconds=watch.spreads(), card_peak_mib=peak_mib(peak))
            different = drawn.measure_swaps(watch)
            keep(seconds=watch.spreads(), different=different, memory_report=server.memory_report)
        keep(card_peak_mib=peak_mib(peak))
    folder = deployment.build_folder
    keep(steps=measure_steps(manifest, folder, told, controls[:most]))
    keep(opening=measure_opening(manifest, folder, told))


if __name__ == "__main__":
    end_orderly_on_terminate()
    typer.run(main)
