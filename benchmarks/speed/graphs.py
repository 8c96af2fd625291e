"""Another graph of the UNet, built for one profile and timed."""

from __future__ import annotations

import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from benchmarks.measuring.timing import time_passes
from intaglio.contract.config import Deployment
from intaglio.contract.sdxl import profiles
from intaglio.contract.tensors import Profile
from intaglio.engines.buffers import allocate_tensors
from intaglio.engines.interface import Array
from intaglio_export.engines.compile import compile_network
from intaglio_export.engines.job import ENGINE_FILES, CompileJob
from intaglio_export.engines.platform import resolve_platform
from intaglio_export.engines.verify import open_verification_backend
from intaglio_export.graphs.examples import example_inputs
from intaglio_export.graphs.export import export_network
from intaglio_export.plan.make import NetworkLoader
from intaglio_export.plan.plan import ONNX_FILE, Plan
from intaglio_export.plan.stages import StageStore

__all__ = ["Timed", "Workbench"]

NETWORK: Final = "unet"


@dataclass(frozen=True, slots=True)
class Timed:
    """A graph that was built and run."""

    passes: dict[str, float]
    """Seconds of one pass."""
    output: Array
    export_seconds: float
    build_seconds: float


class Workbench:
    """The UNet of a deployment, as often as it is wanted, and its first profile."""

    def __init__(self, deployment: Deployment) -> None:
        self.platform = resolve_platform(deployment)
        self.deployment = deployment
        plan = self._plan()
        self.architecture = plan.architecture
        self.spec = plan.spec(NETWORK)
        self.profile = plan.profiles(NETWORK)[0]

    def _plan(self) -> Plan:
        return Plan(self.deployment, self.platform, StageStore(self.deployment.build / ".stages"))

    def network(self) -> Any:
        """A UNet that nobody has changed yet: a loader keeps its own."""
        return NetworkLoader(self._plan()).network(NETWORK)

    def build_and_time(self, network: Any, folder: Path) -> Timed:
        """Export `network` into `folder`, compile it there and run it on fixed inputs."""
        started = time.perf_counter()
        onnx = self.export(network, folder)
        exported = time.perf_counter()
        return self.compile_and_time(onnx, self.profile, folder=folder, export_seconds=exported - started)

    def export(self, network: Any, folder: Path) -> Path:
        """The graph of `network`, written into `folder`."""
        folder.mkdir(parents=True, exist_ok=True)
        onnx = folder / ONNX_FILE
        precision = self.deployment.precision_on(self.platform.runtime)
        export_network(network, NETWORK, onnx, architecture=self.architecture, precision=precision)
        return onnx

    def profile_of(self, images: int) -> Profile:
        """A profile of the first size with guidance, for passes of `images` pictures."""
        sizes = self.deployment.profiles.sizes[:1]
        (found, *_) = profiles(
            self.spec, self.architecture, sizes=sizes, batches=[images], guidance=[True], chunks=1
        )
        return found

    def compile_and_time(
        self, onnx: Path, profile: Profile, *, folder: Path, export_seconds: float = 0.0
    ) -> Timed:
        """Compile a graph for one profile in `folder` and run it on fixed inputs."""
        build_seconds = self.compile(onnx, profile, folder=folder)
        passes, output = self.time(folder, profile)
        return Timed(passes, output, export_seconds, build_seconds)

    def compile(self, onnx: Path, profile: Profile, *, folder: Path) -> float:
        """Compile a graph for one profile in `folder`; the seconds that it took."""
        folder.mkdir(parents=True, exist_ok=True)
        job = CompileJob(
            onnx=onnx,
            network=self.spec,
            profiles=(profile,),
            precision=self.deployment.precision_on(self.platform.runtime),
            timing_cache=folder / "timing.cache",
        )
        started = time.perf_counter()
        compile_network(job, folder, platform=self.platform)
        return time.perf_counter() - started

    def remove_graph(self, folder: Path) -> None:
        """Leave only the engine of `folder`: with its weights a graph takes 5 GB at full size."""
        for path in folder.iterdir():
            if path.name != ENGINE_FILES[self.platform.runtime]:
                path.unlink()

    def time(self, folder: Path, profile: Profile) -> tuple[dict[str, float], Array]:
        """Seconds of a pass of the engine in `folder` on fixed inputs, and its first output."""
        file = folder / ENGINE_FILES[self.platform.runtime]
        precision = self.deployment.precision_on(self.platform.runtime)
        sizes = {axis: size.optimum for axis, size in profile.axes.items()}
        with open_verification_backend(self.platform, threads=self.deployment.execution.threads) as backend:
            engine = backend.load(self.spec, file, precision=precision)
            arrays = allocate_tensors(backend, engine, sizes)
            for tensor, values in example_inputs(self.spec, sizes, precision=precision, seed=1).items():
                backend.upload(arrays[tensor], values.numpy())
            passes = time_passes(engine.bind(sizes, arrays).run, backend.synchronize)
            output = backend.download(arrays[self.spec.outputs[0].name])
            engine.close()
        return passes, output
