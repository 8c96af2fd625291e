"""A random-weight SDXL pipeline at a few thousand parameters, its build manifest, and a backend that runs its
modules in torch.
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import diffusers
import numpy as np
import pytest
import torch

from intaglio.builds.file_checks import file_digest
from intaglio.builds.manifest import BuildManifest, NetworkFile
from intaglio.contract.architecture import architecture_from_configs
from intaglio.contract.config import Defaults, Execution, Limits, Profiles
from intaglio.contract.models import SDXL
from intaglio.contract.ports import numpy_type
from intaglio.contract.sdxl import context_name, controlnet_name
from intaglio.contract.tensors import AxisSizes, NetworkSpec, Precision
from intaglio.engines.interface import Array, DeviceArray, check_bindings
from intaglio.engines.onnxruntime import OnnxRuntimeBackend
from intaglio_export.graphs.sdxl import wrap_network
from intaglio_export.weights.sources import component_of

from ..parity import SDXL_SCHEDULER
from ..tiny import CONTROLS, make_modules

REPOSITORY = Path(__file__).parents[2]
SIZES = ((64, 96), (72, 64))  # 72: latents 9, 5, 3, so every halving rounds


@dataclass
class Tiny:
    """Everything a test of the stages needs."""

    modules: dict[str, Any]
    manifest: BuildManifest
    folder: Path

    @property
    def backend(self) -> TorchBackend:
        return TorchBackend(self.modules)

    def pipeline(self, scheduler: Any, *, controls: tuple[str, ...] = ()) -> Any:
        """diffusers' own pipeline over the same modules."""
        parts = {
            name: self.modules[name]
            for name in ("vae", "text_encoder", "text_encoder_2", "unet", "tokenizer", "tokenizer_2")
        }
        extra: dict[str, Any] = {
            "scheduler": scheduler,
            "force_zeros_for_empty_prompt": True,
            "add_watermarker": False,
        }
        if not controls:
            pipeline = diffusers.StableDiffusionXLPipeline(**parts, **extra)
        else:
            nets = [self.modules[f"controlnet.{control}"] for control in controls]
            pipeline = diffusers.StableDiffusionXLControlNetPipeline(**parts, controlnet=nets, **extra)
        pipeline.set_progress_bar_config(disable=True)
        return pipeline


class TorchBackend(OnnxRuntimeBackend):
    """Host arrays as ONNX Runtime's backend has them; engines are torch modules."""

    def __init__(self, modules: Mapping[str, Any]) -> None:
        super().__init__(threads=1)
        self.modules = modules
        self.runs: list[str] = []

    def load(
        self,
        network: NetworkSpec,
        path: Path,
        *,
        precision: Precision,
        replaceable: Mapping[str, Array] | None = None,
    ) -> Any:
        return TorchEngine(network, self)


@dataclass
class TorchEngine:
    network: NetworkSpec
    backend: TorchBackend
    precision: Precision = "fp32"

    def bind(self, sizes: AxisSizes, arrays: Mapping[str, DeviceArray]) -> Any:
        check_bindings(self, sizes, arrays)
        return TorchBound(self, arrays)

    def close(self) -> None:
        pass


@dataclass
class TorchBound:
    engine: TorchEngine
    arrays: Mapping[str, Any]

    @torch.no_grad()
    def run(self) -> None:
        network, modules = self.engine.network, self.engine.backend.modules
        self.engine.backend.runs.append(network.name)
        inputs = {spec.name: torch.from_numpy(self.arrays[spec.name].values) for spec in network.inputs}
        found = wrap_network(network.name, modules[component_of(network.name)])(*inputs.values())
        if not isinstance(found, dict):
            values = found if isinstance(found, tuple) else (found,)
            found = {spec.name: value for spec, value in zip(network.outputs, values, strict=True)}
        for name, value in found.items():
            self.arrays[name].values[...] = value.numpy()


def _make_manifest(modules: Mapping[str, Any], folder: Path) -> BuildManifest:
    digest = "0" * 64
    steps = ["unet", *map(controlnet_name, CONTROLS)]
    names = ["text_encoder", "text_encoder_2", *steps, *map(context_name, steps), "vae_decoder"]
    networks = {}
    for name in names:
        (folder / f"{name}.onnx").write_text(name)
        networks[name] = NetworkFile(
            path=f"{name}.onnx", key=digest, files={f"{name}.onnx": file_digest(folder / f"{name}.onnx")}
        )
    files = [
        path for part in ("tokenizer", "tokenizer_2", "poses") for path in sorted((folder / part).glob("*.*"))
    ]
    return BuildManifest(
        key=digest,
        config_digest=digest,
        rebuild="intaglio build configs/tiny.yaml",
        base="tiny",
        architecture=architecture_from_configs(
            modules["unet"].config,
            text_encoder=modules["text_encoder"].config.to_dict(),
            text_encoder_2=modules["text_encoder_2"].config.to_dict(),
            vae=modules["vae"].config,
        ),
        scheduler=SDXL_SCHEDULER,
        scaling_factor=0.13025,
        force_zeros_for_empty_prompt=True,
        precision="fp32",
        runtime="onnxruntime",
        target="cpu",
        versions={},
        profiles=Profiles(sizes=SIZES, batch=2, text_chunks=2),
        limits=Limits(
            steps=50,
            cost=64 * 96 * 50 * 4,
            prompt_bytes=2000,
            input_images=3,
            input_pixels=512 * 512,
            controls=2,
        ),
        defaults=Defaults(steps=3, guidance_scale=5.0),
        execution=Execution(threads=1, embedding_cache=4),
        networks=networks,
        controlnets=CONTROLS,
        loras=(),
        tokenizers=("tokenizer", "tokenizer_2"),
        poses="poses",
        files={path.relative_to(folder).as_posix(): file_digest(path) for path in files},
    )


POSE = {
    "canvas_width": 256,
    "canvas_height": 256,
    "people": [
        {
            "pose_keypoints_2d": [
                value for index in range(18) for value in (60 + 8 * index, 40 + 10 * index, 1.0)
            ]
        }
    ],
}


@pytest.fixture(scope="session")
def tiny(tmp_path_factory: pytest.TempPathFactory) -> Tiny:
    """The tiny pipeline as built; tests may read `folder`, not change it."""
    torch.set_num_threads(1)
    folder = tmp_path_factory.mktemp("tiny")
    for part in ("tokenizer", "tokenizer_2"):
        shutil.copytree(REPOSITORY / "miniature/model" / part, folder / part)
    (folder / "poses").mkdir()
    (folder / "poses" / "waving-01.json").write_text(json.dumps(POSE))
    modules = make_modules()
    return Tiny(modules, _make_manifest(modules, folder), folder)


@pytest.fixture(scope="session")
def request_tensors() -> Callable[..., dict[str, Array]]:
    """Keyword arguments -> the tensors a client would send."""
    return _request_tensors


def _request_tensors(**values: Any) -> dict[str, Array]:
    tensors: dict[str, Array] = {}
    for name, value in values.items():
        port = SDXL.input(name)
        items = value if port.dims == (-1,) else [value]
        tensors[name] = np.empty(len(items), numpy_type(port.datatype))
        tensors[name][:] = [item.encode() if isinstance(item, str) else item for item in items]
    return tensors
