"""The stages of a deployment, with everything each depends on; made from files alone, without torch.

    fuse -> onnx/<network> -> engine/<network> -> verify/<network>
Keys follow from keys, so the whole plan is known before anything is done.
"""

# ruff: noqa: PLC0415  (torch is imported only by the stages that must run)

from __future__ import annotations

import hashlib
import json
import logging
import os
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cached_property
from importlib import metadata
from pathlib import Path
from typing import Any, Final

from intaglio.builds.manifest import content_key
from intaglio.contract.config import Deployment, Swap
from intaglio.contract.sdxl import (
    LORA_MERGE,
    Architecture,
    architecture_from_configs,
    context_name,
    controlnet_name,
    network_kind,
    network_spec,
    profiles,
    without_context,
)
from intaglio.contract.tensors import NetworkSpec, Profile
from intaglio.errors import BuildError, ConfigError
from intaglio.loras.files import Component
from intaglio.loras.targets import SWAPPED, SWAPPED_NETWORKS
from intaglio.sampling.tiles import decoded_sizes
from intaglio_export.engines.compile import ENGINE_FILES, CompileJob, Platform, compile_network
from intaglio_export.plan.stages import Stage, StageStore
from intaglio_export.weights.fuse import FUSABLE, LoraChoice, lora_components, lora_digest
from intaglio_export.weights.sources import TOKENIZERS, Base, Weights, find_base, find_model

__all__ = ["ONNX_FILE", "PRISTINE_FILE", "Plan", "component_of"]

log = logging.getLogger(__name__)

ONNX_FILE: Final = "model.onnx"
PRISTINE_FILE: Final = "pristine.safetensors"
_VERIFICATION_FILE: Final = "verification.json"
_FOLDER_DIGITS: Final = 12
"""Of a key, in a folder's name."""
_TORCH_STACK: Final = ("torch", "diffusers", "transformers")


def component_of(network: str) -> str:
    """Which weights a network has: both VAE graphs come from `vae`, the context of a UNet or ControlNet from
    that.
    """
    return "vae" if network in ("vae_decoder", "vae_encoder") else without_context(network)


@dataclass
class Plan:
    """Everything a build of `deployment` will do."""

    deployment: Deployment
    platform: Platform
    store: StageStore
    _networks: dict[str, Any] = field(default_factory=dict)

    @cached_property
    def base(self) -> Base:
        """The base that is available."""
        return find_base(self.deployment.base)

    @property
    def base_label(self) -> str:
        """The base's name for people: a path as seen from the YAML file, so that it is the same on every
        machine.
        """
        if self.base.seeded is not None:
            return self.base.label
        label = Path(self.base.label)
        return os.path.relpath(label, self.deployment.folder) if label.is_absolute() else self.base.label

    @cached_property
    def loras(self) -> tuple[LoraChoice, ...]:
        """The LoRAs to fuse, hashed."""
        sources = self.deployment.loras
        for lora in self.deployment.fused:
            if not sources[lora].path.is_file():
                raise ConfigError(
                    f"lora {lora}: {sources[lora].path}: no such file; train it or correct its path in the configuration"
                )
        return tuple(
            LoraChoice(lora, sources[lora].path, weight, self._lora_digest(lora, sources[lora].path))
            for lora, weight in self.deployment.fused.items()
        )

    def _lora_digest(self, lora: str, path: Path) -> str:
        return lora_digest(lora, path) or self.store.digests.digest(path).sha256

    @cached_property
    def components(self) -> dict[str, Weights]:
        """Pristine weights by component."""
        found = {name: self.base.weights(name) for name in (*FUSABLE, "vae")}
        if self.deployment.vae is not None:
            found["vae"] = find_model(self.deployment.vae, subfolder="vae")
        for control, source in self.deployment.controlnets.items():
            found[controlnet_name(control)] = find_model(source, subfolder="controlnet")
        return found

    @cached_property
    def architecture(self) -> Architecture:
        """Shapes, from the configurations of the base and of the VAE in use.

        Raises:
            ConfigError: the configurations are not SDXL's, or a ControlNet is made for another UNet.
        """
        configs = {name: weights.config for name, weights in self.components.items()}
        try:
            unet = configs["unet"]
            if unet.get("addition_embed_type") != "text_time":
                raise ConfigError(
                    f"base {self.base.label}: not an SDXL UNet (addition_embed_type {unet.get('addition_embed_type')!r})"
                )
            architecture = architecture_from_configs(
                unet,
                text_encoder=configs["text_encoder"],
                text_encoder_2=configs["text_encoder_2"],
                vae=configs["vae"],
            )
        except (KeyError, TypeError, ValueError) as error:
            raise ConfigError(f"base {self.base.label}: not an SDXL pipeline: {error!r}") from error
        for name, config in configs.items():
            if network_kind_or_none(name) == "controlnet":
                wrong = [key for key in _SHARED_WITH_UNET if config.get(key) != unet.get(key)]
                if wrong:
                    raise ConfigError(
                        f"{name}: made for another base: {wrong[0]} is {config.get(wrong[0])}, the base has {unet.get(wrong[0])}"
                    )
        return architecture

    @property
    def networks(self) -> tuple[str, ...]:
        """Every network to build."""
        steps = ("unet", *map(controlnet_name, self.deployment.controlnets))
        merge = (LORA_MERGE,) if self.swaps else ()
        with_context = (name for step in steps for name in (step, context_name(step)))
        return ("text_encoder", "text_encoder_2", *with_context, "vae_decoder", "vae_encoder", *merge)

    @cached_property
    def stages(self) -> tuple[Stage, ...]:
        """All stages in order.

        Raises:
            ConfigError, BuildError: anything the deployment names is missing or damaged; said before any work
            is done.
        """
        self.support_files  # noqa: B018
        fuse = () if self.fuse is None else (self.fuse,)
        each = [(self.onnx(name), self.engine(name), self.verify(name)) for name in self.networks]
        swapped = [self.pristine(name) for name in SWAPPED] if self.swaps else []
        return (*fuse, *(stage for stages in each for stage in stages if stage is not None), *swapped)

    @property
    def swaps(self) -> bool:
        """Whether a running server puts LoRAs on."""
        return self.deployment.swap != "off"

    @cached_property
    def fuse(self) -> Stage | None:
        """Fused weights; None when nothing is fused."""
        if not self.loras:
            return None
        inputs = {
            "base": {name: self._digest(name) for name in FUSABLE},
            "loras": [[lora.sha256, lora.weight] for lora in self.loras],
            "precision": self.deployment.precision,
            "fuser": _source_digest("fuse.py"),
        }
        return Stage("fuse", inputs, _versions(*_TORCH_STACK, "peft"), self._make_fused)

    @cached_property
    def fused_components(self) -> frozenset[str]:
        """Components that the LoRAs' key names point at."""
        touched: set[str] = set()
        for lora in self.loras:
            touched |= lora_components(lora.id, lora.path)
        return frozenset(touched)

    def _digest(self, component: str) -> str:
        weights = self.components[component]
        if weights.seeded is not None:
            return weights.seeded.key(component)
        named = {path.name: self.store.digests.digest(path).sha256 for path in weights.files}
        return content_key({"component": component.partition(".")[0], "files": named})

    def weights_key(self, network: str) -> str:
        """Identifies the weights that `network` is exported with."""
        component = component_of(network)
        if network == LORA_MERGE:
            return content_key({"component": network})  # it has no weights
        if self.fuse is not None and component in self.fused_components:
            return content_key({"fused": self.fuse.key, "component": component})
        return self._digest(component)

    def onnx(self, network: str) -> Stage:
        """The ONNX graph of `network`; any size may be run from it."""
        inputs = {
            "weights": self.weights_key(network),
            "kind": network_kind(network),
            "architecture": self.architecture.model_dump(mode="json"),
            "precision": self.deployment.precision,
            "exporter": _source_digest("graphs.py", "onnx_weights.py", "vae_range.py"),
        }
        return Stage(
            f"onnx/{network}",
            inputs,
            _versions(*_TORCH_STACK, "onnx", "optimum-onnx"),
            lambda work: self._make_onnx(network, work),
        )

    def engine(self, network: str) -> Stage:
        """The engine of `network` for the platform; ONNX Runtime's runs any size, so sizes do not count
        there.
        """
        inputs: dict[str, Any] = {
            "onnx": self.onnx(network).key,
            "runtime": self.platform.runtime,
            "target": self.platform.target,
            "compiler": _source_digest("compile.py"),
        }
        if self.platform.runtime != "onnxruntime":
            inputs |= {"profiles": _profile_values(self.profiles(network)), "swap": self._swap_of(network)}
        versions: dict[str, str] = {self.platform.runtime: self.platform.version}
        return Stage(f"engine/{network}", inputs, versions, lambda work: self._make_engine(network, work))

    def _swap_of(self, network: str) -> Swap:
        return self.deployment.swap if network in SWAPPED_NETWORKS else "off"

    def pristine(self, component: Component) -> Stage:
        """The weights of `component` that LoRAs may change, under the names that its engines have for them."""
        graphs = [self.onnx(network).key for network in SWAPPED[component]]
        inputs = {"onnx": graphs, "swap": self.deployment.swap, "reader": _source_digest("pristine.py")}
        return Stage(
            f"pristine/{component}",
            inputs,
            _versions(*_TORCH_STACK),
            lambda work: self._make_pristine(component, work),
        )

    def verify(self, network: str) -> Stage | None:
        """The comparison with PyTorch; None where the engine cannot run."""
        if self.platform.runtime != "onnxruntime" and not self.platform.on_gpu:
            return None
        inputs = {
            "engine": self.engine(network).key,
            "profiles": _profile_values(self.profiles(network)),
            "tolerance": self.deployment.verify_tolerance,
            "verifier": _source_digest("verify.py"),
        }
        return Stage(
            f"verify/{network}",
            inputs,
            _versions(*_TORCH_STACK),
            lambda work: self._make_verification(network, work),
        )

    def spec(self, network: str) -> NetworkSpec:
        """The table's row."""
        return network_spec(network, self.architecture)

    def profiles(self, network: str) -> tuple[Profile, ...]:
        """What the engine is compiled for and verified at."""
        asked = self.deployment.profiles
        return profiles(
            self.spec(network),
            self.architecture,
            sizes=decoded_sizes(asked, self.architecture) if network == "vae_decoder" else asked.sizes,
            batches=asked.batches,
            guidance=asked.guidance_modes,
            chunks=asked.text_chunks,
        )

    def engine_file(self, network: str) -> Path:
        """The file an engine backend opens."""
        return self.store.path(self.engine(network)) / ENGINE_FILES[self.platform.runtime]

    @cached_property
    def tokenizer_folders(self) -> tuple[str, str]:
        """Where the build has both, under a name of their content: a server of the build before reads its
        own.
        """
        files = self._tokenizer_files
        key = self.store.digests.combined(files, root=self.base.root)[:_FOLDER_DIGITS]
        first, second = (f"tokenizers/{key}/{name}" for name in TOKENIZERS)
        return first, second

    @cached_property
    def _tokenizer_files(self) -> list[Path]:
        return [
            path
            for name in TOKENIZERS
            for path in sorted((self.base.root / name).iterdir())
            if path.is_file()
        ]

    @cached_property
    def pose_folder(self) -> str | None:
        """Where the build has its poses, under a name of their content; None without any."""
        poses = self.deployment.poses
        if poses is None:
            return None
        if not poses.is_dir():
            raise ConfigError(f"poses: {poses}: no such folder")
        return (
            f"poses/{self.store.digests.combined(sorted(poses.glob('*.json')), root=poses)[:_FOLDER_DIGITS]}"
        )

    @cached_property
    def support_files(self) -> dict[str, Path]:
        """Tokenizer and pose files by their path in the build."""
        folders = dict(zip(TOKENIZERS, self.tokenizer_folders, strict=True))
        found = {f"{folders[path.parent.name]}/{path.name}": path for path in self._tokenizer_files}
        poses, folder = self.deployment.poses, self.pose_folder
        if poses is not None:
            found |= {f"{folder}/{path.name}": path for path in sorted(poses.glob("*.json"))}
        return found

    def _make_fused(self, work: Path) -> dict[str, Any]:
        from intaglio_export.graphs.sdxl import TORCH_DTYPES
        from intaglio_export.weights.fuse import fuse_loras, lora_set_digest

        networks = {name: self._load(name) for name in FUSABLE}  # float32: many small sums
        dtype = "float16" if self.deployment.precision == "fp16" else "float32"
        touched = fuse_loras(networks, self.loras, dtype=dtype)
        if touched != self.fused_components:
            raise BuildError(
                f"fuse: touched {sorted(touched)}, the files' key names say {sorted(self.fused_components)}"
            )
        for name in sorted(touched):
            networks[name].to(TORCH_DTYPES[self.deployment.precision]).save_pretrained(
                work / name, safe_serialization=True
            )  # type: ignore[operator]
        return {"components": sorted(touched), "lora_set": lora_set_digest(self.loras)}

    def _make_onnx(self, network: str, work: Path) -> dict[str, Any]:
        from intaglio_export.graphs.sdxl import export_network

        model = self.network(network)
        export_network(
            model,
            network,
            work / ONNX_FILE,
            architecture=self.architecture,
            precision=self.deployment.precision,
        )
        return {}

    def _make_engine(self, network: str, work: Path) -> dict[str, Any]:
        job = CompileJob(
            onnx=self.store.path(self.onnx(network)) / ONNX_FILE,
            network=self.spec(network),
            profiles=self.profiles(network),
            precision=self.deployment.precision,
            timing_cache=self.store.folder
            / "timing"
            / f"{self.platform.runtime}-{self.platform.version}-{self.platform.target}.cache",
            swap=self._swap_of(network),
        )
        return compile_network(job, work, platform=self.platform)

    def _make_pristine(self, component: Component, work: Path) -> dict[str, Any]:
        from intaglio_export.graphs.pristine import write_pristine
        from intaglio_export.graphs.sdxl import wrap_network

        wrapper = wrap_network(component, self.network(component))
        onnx = [self.store.path(self.onnx(network)) / ONNX_FILE for network in SWAPPED[component]]
        return {
            "targets": write_pristine(work / PRISTINE_FILE, wrapper, onnx=onnx, swap=self.deployment.swap)
        }

    def _make_verification(self, network: str, work: Path) -> dict[str, Any]:
        from intaglio_export.engines.verify import (
            Check,
            expected_outputs,
            open_verification_backend,
            verify_engine,
        )

        check = Check(
            network=self.spec(network),
            engine=self.engine_file(network),
            precision=self.deployment.precision,
            profiles=self.profiles(network),
            tolerance=self.deployment.verify_tolerance,
        )
        expected = expected_outputs(check, self.network(network))
        if self.platform.on_gpu:
            self._leave_card()
        with open_verification_backend(self.platform, threads=self.deployment.execution.threads) as backend:
            errors, activation_bytes = verify_engine(check, expected, backend=backend)
        (work / _VERIFICATION_FILE).write_text(json.dumps(errors, indent=1), encoding="utf-8")
        return {"relative_error": max(errors.values()), "activation_bytes": activation_bytes}

    def network(self, network: str) -> Any:
        """The network with LoRAs fused, in the deployment's precision, on the card it is for if that is here;
        one is kept at a time.
        """
        import torch

        from intaglio_export.graphs.sdxl import TORCH_DTYPES, LoraMerge

        component, dtype = component_of(network), TORCH_DTYPES[self.deployment.precision]
        if network == LORA_MERGE:
            return LoraMerge().to(
                "cuda" if self.platform.on_gpu and torch.cuda.is_available() else "cpu", dtype
            )
        if component not in self._networks:
            self._networks.clear()
            fused = self.fuse is not None and component in self.fused_components
            weights = (
                Weights(self.store.path(self.fuse) / component)
                if fused and self.fuse is not None
                else self.components[component]
            )
            self._networks[component] = self._fitted(component, weights, dtype)
            if self.platform.on_gpu and torch.cuda.is_available():
                self._networks[component].to("cuda")
        return self._networks[component].to(dtype)

    def _leave_card(self) -> None:
        """The place of the network on the card is the engine's now."""
        import torch

        self._networks.clear()
        if torch.cuda.is_available():
            torch.cuda.empty_cache()

    def _fitted(self, component: str, weights: Weights, dtype: Any) -> Any:
        """The network in `dtype`; a VAE that float16 does not hold is changed so that it does."""
        import torch

        from intaglio_export.weights.vae_range import fit_into_float16

        if component != "vae" or dtype != torch.float16:
            return self._load(component, weights, dtype=dtype)
        vae = self._load(component, weights)
        divisors = fit_into_float16(vae)
        if max(divisors.values()) > 1:
            log.info("vae: activations divided to stay inside float16: %s", divisors)
        return vae.to(dtype)

    def _load(self, component: str, weights: Weights | None = None, *, dtype: Any = None) -> Any:
        from intaglio_export.weights.sources import load_network

        return load_network(
            component.partition(".")[0], weights or self.components[component], base=self.base, dtype=dtype
        )


_SHARED_WITH_UNET: Final = (
    "attention_head_dim",
    "block_out_channels",
    "down_block_types",
    "layers_per_block",
    "cross_attention_dim",
    "transformer_layers_per_block",
    "projection_class_embeddings_input_dim",
)


def network_kind_or_none(name: str) -> str | None:
    """`network_kind`, None for components that are no network (`vae`)."""
    try:
        return network_kind(name)
    except KeyError:
        return None


def _profile_values(found: tuple[Profile, ...]) -> dict[str, Any]:
    return {
        profile.name: {
            name: [axis.minimum, axis.optimum, axis.maximum] for name, axis in profile.axes.items()
        }
        for profile in found
    }


def _source_digest(*names: str) -> str:
    """Digest of modules of this package: whoever changes how a stage works need not remember to raise a
    number.
    """
    return hashlib.sha256(
        b"".join((Path(__file__).parent / name).read_bytes() for name in names)
    ).hexdigest()[:16]


def _versions(*names: str) -> Mapping[str, str]:
    return {name: metadata.version(name) for name in names}
