"""The stages of a deployment and the key of each.

    fuse -> onnx/<network> -> engine/<network> -> verify/<network>
                           -> pristine/<component>
Everything here comes from files, without torch. Keys follow from keys, so the whole plan is known before any
work is done; `intaglio_export.plan.make` does the work.
"""

from __future__ import annotations

import functools
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from importlib import metadata
from typing import Any, Final, Literal

from intaglio.builds.manifest import content_key
from intaglio.contract.architecture import LARGEST_CLIP_SKIP, Architecture
from intaglio.contract.config import Deployment, Swap
from intaglio.contract.lora_registry import ResolvedLora
from intaglio.contract.sdxl import (
    LORA_MERGE,
    network_kind,
    network_spec,
    networks_of,
    profiles,
)
from intaglio.contract.tensors import NetworkSpec, Precision, Profile, join_profiles
from intaglio.errors import BuildError, ConfigError
from intaglio.loras.adapters import lora_digest
from intaglio.loras.files import Component, named_components
from intaglio.loras.targets import SWAPPED, SWAPPED_NETWORKS
from intaglio.loras.tensor_files import map_tensor_file
from intaglio.sampling.tiles import decoded_sizes
from intaglio_export.engines.platform import Platform
from intaglio_export.plan.architecture import architecture_of
from intaglio_export.plan.source_modules import ENGINE_MODULES, SEEDED_MODULES, STAGE_MODULES, source_digest
from intaglio_export.plan.stages import Stage, StageStore
from intaglio_export.weights.missing_lora_files import missing_file
from intaglio_export.weights.sources import Base, Weights, component_of, find_base, find_model

__all__ = ["ONNX_FILE", "PRISTINE_FILE", "Plan"]

ONNX_FILE: Final = "model.onnx"
PRISTINE_FILE: Final = "pristine.safetensors"
_AXES_OF_FIELD: Final = {"sizes": "HWhw", "guidance": "N", "text_chunks": "T"}
"""First letters of the axes that each field of `profiles.ranges` decides."""
_TORCH_STACK: Final = ("torch", "diffusers", "transformers")


@dataclass(frozen=True)
class Plan:
    """Everything that a build of `deployment` depends on."""

    deployment: Deployment
    platform: Platform
    store: StageStore

    @cached_property
    def base(self) -> Base:
        """The base that is available; ConfigError or BuildError where none is."""
        return find_base(self.deployment.base, replaced=() if self.deployment.vae is None else ("vae",))

    @cached_property
    def loras(self) -> tuple[ResolvedLora, ...]:
        """The LoRAs to fuse, in their order.

        Raises:
            ConfigError: a file is missing.
            BuildError: a file is damaged.
            LoraRefused: peft's configuration beside a file is damaged.
        """
        found = []
        for lora, weight in self.deployment.fused.items():
            path = self.deployment.loras[lora].path
            if not path.is_file():
                raise ConfigError(f"lora {lora}: {missing_file(path)}")
            sha256 = lora_digest(lora, path) or self.store.digests.digest(path).sha256
            found.append(ResolvedLora(id=lora, sha256=sha256, weight=weight))
        return tuple(found)

    @cached_property
    def components(self) -> dict[str, Weights]:
        """Pristine weights by component."""
        found = {name: self.base.weights(name) for name in (*SWAPPED, "vae")}
        if self.deployment.vae is not None:
            found["vae"] = find_model(self.deployment.vae, component="vae")
        for network, source in self.deployment.control_networks.items():
            found[network] = find_model(source, component=source.component, unet=found["unet"].config)
        return found

    @cached_property
    def architecture(self) -> Architecture:
        """Shapes, from the configurations of the base and of the VAE in use; ConfigError where they do not
        fit.
        """
        configs = {name: weights.config for name, weights in self.components.items()}
        return architecture_of(configs, base=self.base.label)

    @property
    def precision(self) -> Precision:
        """The networks' precision on the platform."""
        return self.deployment.precision_on(self.platform.runtime)

    @property
    def device(self) -> Literal["cuda", "cpu"]:
        """Where PyTorch runs the networks while they are exported and verified, if it can use a card."""
        return "cuda" if self.platform.on_gpu else "cpu"

    @property
    def tolerance(self) -> float:
        """The largest relative error that verification accepts."""
        return self.deployment.tolerance_on(self.platform.runtime)

    @property
    def networks(self) -> tuple[str, ...]:
        """Every network to build."""
        return networks_of(self.deployment.control_networks, swaps=self.deployment.swaps)

    @cached_property
    def stages(self) -> tuple[Stage, ...]:
        """All stages in order.

        Raises:
            ConfigError, BuildError, LoraRefused: something that the deployment names is missing or damaged.
        """
        found: list[Stage | None] = [self.fuse]
        for network in self.networks:
            found += [self.onnx(network), self.engine(network), self.verify(network)]
        if self.deployment.swaps:
            found += [self.pristine(component) for component in SWAPPED]
        return tuple(stage for stage in found if stage is not None)

    @cached_property
    def fuse(self) -> Stage | None:
        """Fused weights; None when nothing is fused."""
        if not self.loras:
            return None
        inputs = {
            "base": {name: _weights_digest(self, name) for name in SWAPPED},
            # In the order of fusing, on which the last digit of a sum depends.
            "loras": [[lora.sha256, lora.weight] for lora in sorted(self.loras, key=lambda lora: lora.id)],
            "precision": self.precision,
            "sources": source_digest(STAGE_MODULES["fuse"]),
        }
        return Stage("fuse", "", inputs, _versions(*_TORCH_STACK, "numpy"))

    @cached_property
    def fused_components(self) -> frozenset[Component]:
        """Components that the keys of the fused LoRAs name."""
        found: set[Component] = set()
        for lora in self.loras:
            path = self.deployment.loras[lora.id].path
            try:
                keys = map_tensor_file(path).tensors
            except (OSError, ValueError) as error:
                raise BuildError(f"lora {lora.id}: {path}: {error}; copy the file again") from error
            found |= named_components(lora.id, keys)
        return frozenset(found)

    def weights_key(self, network: str) -> str:
        """Identifies the weights that `network` is exported with."""
        component = component_of(network)
        if network == LORA_MERGE:
            return content_key({"component": network})  # it has no weights
        if self.fuse is not None and component in self.fused_components:
            return content_key({"fused": self.fuse.key, "component": component})
        return _weights_digest(self, component)

    def onnx(self, network: str) -> Stage:
        """The ONNX graph of `network`, which runs any size."""
        inputs: dict[str, Any] = {
            "weights": self.weights_key(network),
            "kind": network_kind(network),
            "tensors": self.spec(network).describe(),
            "architecture": self.architecture.model_dump(mode="json"),
            "precision": self.precision,
            # PyTorch computes the constants of a graph there, so their last digits differ.
            "device": self.device,
            "sources": source_digest(STAGE_MODULES["onnx"]),
        }
        if network.startswith("text_encoder"):
            inputs["largest_clip_skip"] = LARGEST_CLIP_SKIP  # the graph holds so many hidden states, and one
        return Stage("onnx", network, inputs, _versions(*_TORCH_STACK, "onnx"))

    def engine(self, network: str) -> Stage:
        """The engine of `network` for the platform."""
        inputs: dict[str, Any] = {
            "onnx": self.onnx(network).key,
            "runtime": self.platform.runtime,
            "target": self.platform.target,
            "sources": source_digest(ENGINE_MODULES[self.platform.runtime]),
        }
        if self.platform.runtime != "onnxruntime":  # whose engines run any size and admit any weights
            inputs["profiles"] = _profile_values(self.profiles(network))
            inputs["swap"] = self.swap_of(network)
        return Stage("engine", network, inputs, {self.platform.runtime: self.platform.version})

    def swap_of(self, network: str) -> Swap:
        """Which weights of `network` a running server replaces."""
        return self.deployment.swap if network in SWAPPED_NETWORKS else "off"

    def pristine(self, component: Component) -> Stage:
        """The weights of `component` that LoRAs may change, under the names in its engines."""
        inputs = {
            "onnx": [self.onnx(network).key for network in SWAPPED[component]],
            "swap": self.deployment.swap,
            "sources": source_digest(STAGE_MODULES["pristine"]),
        }
        return Stage("pristine", component, inputs, _versions(*_TORCH_STACK))

    def verify(self, network: str) -> Stage | None:
        """The comparison with PyTorch; None where the engine cannot run on this machine."""
        if self.platform.runtime != "onnxruntime" and not self.platform.on_gpu:
            return None
        inputs = {
            "engine": self.engine(network).key,
            "profiles": _profile_values(self.passes(network)),
            "tolerance": self.tolerance,
            "sources": source_digest(STAGE_MODULES["verify"]),
        }
        return Stage("verify", network, inputs, _versions(*_TORCH_STACK))

    def spec(self, network: str) -> NetworkSpec:
        """The network's row of the tensor table."""
        return network_spec(network, self.architecture)

    def profiles(self, network: str) -> tuple[Profile, ...]:
        """What the engine is compiled for."""
        ranges = self.deployment.profiles.ranges
        names = self.spec(network).axis_names
        joined = {name for name in names for field in ranges if name[0] in _AXES_OF_FIELD[field]}
        return join_profiles(self.passes(network), joined)

    def passes(self, network: str) -> tuple[Profile, ...]:
        """Every combination of sizes that the engine may run, which verification chooses from."""
        asked = self.deployment.profiles
        sizes: Sequence[tuple[int, int]] = asked.sizes
        if network == "vae_decoder":
            sizes = decoded_sizes(asked, self.architecture)
        return profiles(
            self.spec(network),
            self.architecture,
            sizes=sizes,
            batches=asked.batches,
            guidance=asked.guidance_modes,
            chunks=asked.text_chunks,
        )


def _weights_digest(plan: Plan, component: str) -> str:
    """Identifies the pristine weights of `component`."""
    weights = plan.components[component]
    kind = component.partition(".")[0]
    if weights.seeded is not None:
        drawn = {
            "seeded": weights.seeded.architecture,
            "seed": weights.seeded.seed,
            "sources": source_digest(SEEDED_MODULES),
        }
        return content_key({"component": kind, **drawn})
    digests = {path: plan.store.digests.digest(path).sha256 for path in weights.files}
    # A single file may have any name, so its name is not part of its content.
    files = {"file" if path == weights.file else path.name: sha256 for path, sha256 in digests.items()}
    inputs: dict[str, Any] = {"component": kind, "files": files}
    if weights.derived is not None:
        inputs["configuration"] = dict(weights.derived)
    return content_key(inputs)


def _profile_values(found: tuple[Profile, ...]) -> dict[str, dict[str, list[int]]]:
    values = {}
    for profile in found:
        ranges = profile.axes.items()
        values[profile.name] = {name: [axis.minimum, axis.optimum, axis.maximum] for name, axis in ranges}
    return values


def _versions(*names: str) -> Mapping[str, str]:
    return {name: _installed_version(name) for name in names}


@functools.cache  # each stage asks, and a version is read from a file
def _installed_version(name: str) -> str:
    return metadata.version(name)
