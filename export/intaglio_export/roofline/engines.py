"""One pass of each engine of a build: its work, counted in its graph, and its seconds."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

from intaglio.builds.manifest import BuildManifest
from intaglio.contract.config import Deployment
from intaglio.contract.sdxl import (
    LORA_MERGE,
    axis_sizes,
    network_kind,
    network_spec,
    opened_networks,
    profiles,
)
from intaglio.contract.tensors import NetworkSpec
from intaglio.engines.buffers import allocate_tensors
from intaglio.engines.interface import Backend, Engine
from intaglio.errors import EngineMismatch
from intaglio.sampling.tiles import latent_tiling
from intaglio.stages.diffuse.engine_files import EngineFiles
from intaglio_export.card.measure import seconds_of
from intaglio_export.graphs.examples import example_inputs
from intaglio_export.plan.plan import ONNX_FILE
from intaglio_export.plan.stages import STORE, StageStore
from intaglio_export.roofline.work import PassWork, graph_work

__all__ = ["EnginePass", "Passes"]


@dataclass(frozen=True, slots=True)
class EnginePass:
    """One engine at one size."""

    network: str
    equal: tuple[str, ...]
    """Other networks of the build with the same graph, which take as long and are not measured."""
    sizes: dict[str, int]
    """Of every named axis."""
    work: PassWork
    seconds: float
    """Of one pass among passes that follow one another, in the fastest of several samples: what other work on
    the machine adds is no property of the engine.
    """


class Passes:
    """The passes of the engines that a server opens, for pictures of one size."""

    def __init__(
        self, deployment: Deployment, manifest: BuildManifest, *, size: tuple[int, int], guidance: bool
    ) -> None:
        self._manifest = manifest
        self._folder = deployment.build_folder
        self._store = StageStore(deployment.build / STORE)
        self._size = size
        self._guidance = guidance
        opened = opened_networks(manifest.control_networks, merges=manifest.swaps)
        kinds: dict[str, list[str]] = {}
        for name in opened:
            kinds.setdefault(network_kind(name), []).append(name)
        self.networks = {names[0]: tuple(names[1:]) for names in kinds.values()}
        """One network of each kind, and the others of it."""

    def measure(self, backend: Backend, *, started: Callable[[str], None]) -> Iterator[EnginePass]:
        """Open, time and close one engine after another; `started` is told which.

        Raises:
            EngineMismatch: a file of the build, or a graph that it was made from, is missing.
            BuildError: a graph has an operator that cannot be counted.
        """
        files = EngineFiles(self._manifest, self._folder, backend)
        for name, equal in self.networks.items():
            started(name)
            spec = network_spec(name, self._manifest.architecture)
            sizes = self._sizes(spec)
            work = graph_work(self._graph(name), spec, sizes)
            engine = files.load(name)
            try:
                seconds = self._seconds(backend, engine, sizes)
            finally:
                engine.close()
            yield EnginePass(name, equal, sizes, work, seconds)

    def _seconds(self, backend: Backend, engine: Engine, sizes: dict[str, int]) -> float:
        arrays = allocate_tensors(backend, engine, sizes)
        examples = example_inputs(engine.network, sizes, precision=self._manifest.precision)
        for name, values in examples.items():
            backend.upload(arrays[name], values.numpy())
        return seconds_of(engine.bind(sizes, arrays).run, backend, choose=min)

    def _sizes(self, spec: NetworkSpec) -> dict[str, int]:
        """The size of every axis of a network in a pass for one picture."""
        architecture = self._manifest.architecture
        if spec.name == LORA_MERGE:
            (profile,) = profiles(spec, architecture, sizes=(), batches=(), guidance=(), chunks=1)
            return {axis: one.optimum for axis, one in profile.axes.items()}
        width, height = self._size
        if spec.name == "vae_decoder":
            scale = architecture.vae_scale
            tiling = latent_tiling(
                self._manifest.profiles, architecture, width=width // scale, height=height // scale
            ).scaled(scale)
            width, height = tiling.width, tiling.height
        every = axis_sizes(architecture, width=width, height=height, guidance=self._guidance)
        return {axis: every[axis] for axis in spec.axis_names}

    def _graph(self, network: str) -> Path:
        stage = f"onnx/{network}"
        key = self._manifest.stages.get(stage)
        path = None if key is None else self._store.result_path(stage, key) / ONNX_FILE
        if path is None or not path.is_file():
            raise EngineMismatch(
                f"{self._store.folder}: the graph of {network} is not there any more",
                command=f"{self._manifest.rebuild} --force",
            )
        return path
