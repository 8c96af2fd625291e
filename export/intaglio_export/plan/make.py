"""How the result of each kind of stage is made."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Final

import torch
from torch import nn

from intaglio.contract.sdxl import LORA_MERGE
from intaglio.contract.tensors import compute_dtype
from intaglio.errors import BuildError
from intaglio.loras.sets import set_digest
from intaglio.loras.targets import SWAPPED
from intaglio_export.engines.compile import compile_network
from intaglio_export.engines.job import ENGINE_FILES, CompileJob
from intaglio_export.engines.verify import (
    Check,
    expected_outputs,
    open_verification_backend,
    verify_engine,
)
from intaglio_export.graphs.export import export_network
from intaglio_export.graphs.pristine import write_pristine
from intaglio_export.graphs.sdxl import LoraMerge, wrap_network
from intaglio_export.plan.plan import ONNX_FILE, PRISTINE_FILE, Plan
from intaglio_export.plan.stages import Notes, StageKind
from intaglio_export.weights.configuration import configuration_read
from intaglio_export.weights.fuse import fuse_loras
from intaglio_export.weights.latents import LatentStatistics
from intaglio_export.weights.load import TORCH_DTYPES, load_for_precision, load_network
from intaglio_export.weights.sources import Weights, component_of

__all__ = ["MAKERS", "Maker", "NetworkLoader"]

_VERIFICATION_FILE: Final = "verification.json"


class NetworkLoader:
    """The PyTorch networks of a plan. The last one stays in memory until `release`: the next stage often
    needs it.
    """

    def __init__(self, plan: Plan) -> None:
        self.plan = plan
        self._component: str | None = None
        self._held: nn.Module | None = None

    def network(self, network: str) -> nn.Module:
        """The network in the plan's precision and on its device, with the LoRAs of `fuse` applied.

        Raises:
            BuildError: the weights do not fit their configuration.
        """
        dtype = TORCH_DTYPES[self.plan.precision]
        if network == LORA_MERGE:
            return LoraMerge().to(self._device, dtype)
        component = component_of(network)
        if self._held is None or self._component != component:
            self.release()
            self._held = self._load(component)
            self._component = component
        return self._held.to(dtype)  # verification may have changed its dtype

    @property
    def _device(self) -> str:
        # A PyTorch without CUDA has another version, which is a part of every key.
        return self.plan.device if torch.cuda.is_available() else "cpu"

    def _load(self, component: str) -> nn.Module:
        plan = self.plan
        weights = plan.components[component]
        if plan.fuse is not None and component in plan.fused_components:
            weights = Weights(plan.store.path(plan.fuse) / component)
        precision = plan.precision
        loaded = load_for_precision(component, weights, base=plan.base, precision=precision)
        return loaded.to(self._device)

    def release(self) -> None:
        """Free the memory of the network that is held."""
        self._held = None
        self._component = None

    def release_card(self) -> None:
        """Free the card's memory for an engine."""
        self.release()
        if torch.cuda.is_available():
            torch.cuda.empty_cache()


Maker = Callable[[NetworkLoader, str, Path], Notes]
"""(loader of the plan's networks, the stage's network, folder to fill) -> notes for the record."""


def make_fused(loader: NetworkLoader, _network: str, work: Path) -> Notes:
    """The components that LoRAs change, with all of them fused, as diffusers saves them."""
    plan = loader.plan
    # float32: the fused weights are the sum of many small updates.
    networks: dict[str, nn.Module] = {}
    for name in SWAPPED:
        networks[name] = load_network(name, plan.components[name], base=plan.base)
    paths = {lora.id: plan.deployment.loras[lora.id].path for lora in plan.loras}
    dtype = compute_dtype(plan.precision)
    changed = fuse_loras(networks, plan.loras, paths=paths, dtype=dtype)
    if changed != plan.fused_components:
        raise BuildError(
            f"fuse: changed {sorted(changed)}, but the files' keys name {sorted(plan.fused_components)}"
        )
    for component in sorted(changed):
        network = networks[component].to(TORCH_DTYPES[plan.precision])
        network.save_pretrained(work / component, safe_serialization=True)  # type: ignore[operator]
    return {"components": sorted(changed), "lora_set": set_digest(plan.loras)}


def make_onnx(loader: NetworkLoader, network: str, work: Path) -> Notes:
    """The ONNX graph."""
    plan = loader.plan
    export_network(
        loader.network(network),
        network,
        work / ONNX_FILE,
        architecture=plan.architecture,
        precision=plan.precision,
    )
    return {}


def make_engine(loader: NetworkLoader, network: str, work: Path) -> Notes:
    """The engine, from the graph in the store."""
    plan = loader.plan
    platform = plan.platform
    timings = f"{platform.runtime}-{platform.version}-{platform.target}.cache"
    job = CompileJob(
        onnx=onnx_file(plan, network),
        network=plan.spec(network),
        profiles=plan.profiles(network),
        precision=plan.precision,
        timing_cache=plan.store.folder / "timing" / timings,
        swap=plan.swap_of(network),
    )
    return compile_network(job, work, platform=platform)


def make_pristine(loader: NetworkLoader, component: str, work: Path) -> Notes:
    """The weights of a component that LoRAs may change."""
    plan = loader.plan
    wrapper = wrap_network(component, loader.network(component))
    graphs = [onnx_file(plan, network) for network in SWAPPED[component]]  # type: ignore[index]
    count = write_pristine(work / PRISTINE_FILE, wrapper, onnx=graphs, swap=plan.deployment.swap)
    return {"targets": count}


def make_verification(loader: NetworkLoader, network: str, work: Path) -> Notes:
    """The errors of the engine against PyTorch; BuildError where one is above the tolerance."""
    plan = loader.plan
    check = Check(
        network=plan.spec(network),
        engine=plan.store.path(plan.engine(network)) / ENGINE_FILES[plan.platform.runtime],
        precision=plan.precision,
        profiles=plan.passes(network),
        tolerance=plan.tolerance,
        latents=LatentStatistics.of(configuration_read("vae", plan.components["vae"].config)),
    )
    expected = expected_outputs(check, loader.network(network))
    if plan.platform.on_gpu:
        loader.release_card()
    threads = plan.deployment.execution.threads
    with open_verification_backend(plan.platform, threads=threads) as backend:
        errors, activation_bytes = verify_engine(check, expected, backend=backend)
    (work / _VERIFICATION_FILE).write_text(json.dumps(errors, indent=1), encoding="utf-8")
    return {"relative_error": max(errors.values()), "activation_bytes": activation_bytes}


def onnx_file(plan: Plan, network: str) -> Path:
    """Where the store has the graph of `network`."""
    return plan.store.path(plan.onnx(network)) / ONNX_FILE


MAKERS: Final[Mapping[StageKind, Maker]] = {
    "fuse": make_fused,
    "onnx": make_onnx,
    "engine": make_engine,
    "pristine": make_pristine,
    "verify": make_verification,
}
